//! Representation statistics: one pass over the rows fills a cube of counts, every grouping is a roll-up of it.
