//! The report page, its charts, terminal tables and the dataset card.
