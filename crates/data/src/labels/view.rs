//! What is looked at in a table: attributes, how some of them are derived, and which rows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch::Column;
use super::derive::{Derive, Step};
use super::filter::Filter;
use super::quantiles::Edges;
use super::table::{LabelInfo, LabelKind};
use crate::error::DataError;
use crate::table::no_such_column;

/// The attributes that are counted, and which rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct View {
    /// The columns and derived attributes to read, in order.
    pub attributes: Vec<String>,
    /// Attributes made from others, by name.
    pub derive: BTreeMap<String, Derive>,
    /// Which rows are kept: those that pass every filter.
    pub filters: Vec<Filter>,
}

/// A view whose names are found in a table and whose quantiles are computed: see
/// [`LabelTable::view`](super::LabelTable::view).
#[derive(Clone, Debug, Default)]
pub struct ResolvedView {
    /// The columns that are read.
    pub(crate) sources: Vec<Column>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) filters: Vec<(Attribute, Filter)>,
    /// The edges that quantiles were given.
    pub(crate) edges: Edges,
    /// Words that stand for a missing value.
    pub(crate) missing: Arc<HashSet<String>>,
    /// What might surprise.
    pub(crate) notes: Vec<String>,
}

/// A value by name and how it comes about.
#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub name: String,
    /// Its place among [`ResolvedView::sources`].
    pub source: usize,
    pub steps: Vec<Step>,
    /// Numbers stay as they are, whether they can name groups or not.
    pub any_number: bool,
}

impl ResolvedView {
    /// The names of the attributes, in the order of the columns that are given.
    pub fn attributes(&self) -> Vec<&str> {
        self.attributes.iter().map(|attribute| attribute.name.as_str()).collect()
    }

    /// The edges between the bins of an attribute that is derived by `quantiles`.
    pub fn edges(&self, attribute: &str) -> Option<&[f64]> {
        self.edges.get(attribute).map(Vec::as_slice)
    }

    /// What a reader should know: quantiles that fell together.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The place of a column among those that are read.
    fn source(&mut self, column: Column) -> usize {
        match self.sources.iter().position(|known| *known == column) {
            Some(place) => place,
            None => {
                self.sources.push(column);
                self.sources.len() - 1
            }
        }
    }
}

/// The columns of a table and what is derived from them.
pub(crate) struct Names<'a> {
    pub columns: &'a [LabelInfo],
    pub derive: &'a BTreeMap<String, Derive>,
}

impl Names<'_> {
    /// Checks all of it: no derived attribute has the name of a column, each is made from something that is there, none
    /// from itself.
    pub fn check(&self) -> Result<(), DataError> {
        for (name, derive) in self.derive {
            let refuse = |problem: String| Err(DataError::Derive { attribute: name.clone(), problem });
            if self.columns.iter().any(|column| column.name == *name) {
                return refuse("the table has a column of this name; choose another".into());
            }
            if let Err(problem) = derive.validate(name) {
                return refuse(problem);
            }
            self.chain(name)?;
        }
        Ok(())
    }

    /// The column that a name comes from, and the derived attributes on the way, the first to be made first.
    pub fn chain(&self, name: &str) -> Result<(&LabelInfo, Vec<String>), DataError> {
        let mut way: Vec<String> = Vec::new();
        let mut at = name;
        while let Some(derive) = self.derive.get(at) {
            if let Some(begin) = way.iter().position(|known| known == at) {
                let circle = way[begin..].iter().map(String::as_str).chain([at]).collect::<Vec<_>>().join("` from `");
                let problem = format!("is made from itself: `{circle}`; one of them must come from a column");
                return Err(DataError::Derive { attribute: name.to_owned(), problem });
            }
            way.push(at.to_owned());
            at = &derive.from;
        }
        let known =
            || self.columns.iter().map(|column| column.name.as_str()).chain(self.derive.keys().map(String::as_str));
        let column = self.columns.iter().find(|column| column.name == at);
        let column = column.ok_or_else(|| no_such_column(at, known()))?;
        way.reverse();
        Ok((column, way))
    }

    /// How a value comes about. `edges` are those of all quantiles on the way.
    pub fn attribute(&self, name: &str, edges: &Edges, view: &mut ResolvedView) -> Result<Attribute, DataError> {
        let (column, way) = self.chain(name)?;
        if let LabelKind::Image | LabelKind::Other = column.kind {
            let holds = if column.kind == LabelKind::Image { "images" } else { "lists, bytes, times or objects" };
            return Err(super::arrays::not_an_attribute(&column.name, holds));
        }
        let step = |attribute: &String| {
            let step = self.derive[attribute].step(attribute, edges.get(attribute).map(Vec::as_slice));
            step.map_err(|problem| DataError::Derive { attribute: attribute.clone(), problem })
        };
        let steps = way.iter().map(step).collect::<Result<_, _>>()?;
        let source = view.source(column.source.clone());
        Ok(Attribute { name: name.to_owned(), source, steps, any_number: false })
    }
}
