//! Groups and patterns: one value for each attribute of a grouping, or for some of them.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One value for each attribute of a grouping, in the grouping's order: `garment=coat & colour=blue`.
///
/// Serialises as a map that keeps that order: `{"garment":"coat","colour":"blue"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Group(Vec<(String, String)>);

/// Why a list of pairs is not a group.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GroupError {
    /// The same attribute is named twice.
    #[error("attribute `{0}` stands twice in one group; name each attribute once")]
    Repeated(String),
    /// A part of the text is not `attribute=value`.
    #[error("`{0}` is not `attribute=value`; write groups as `garment=coat & colour=blue`")]
    NotAPair(String),
}

impl Group {
    /// A group from (attribute, value) pairs in the grouping's order.
    ///
    /// # Errors
    /// [`GroupError::Repeated`] where an attribute is named twice.
    pub fn new<A: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (A, V)>) -> Result<Self, GroupError> {
        let pairs: Vec<(String, String)> = pairs.into_iter().map(|(a, v)| (a.into(), v.into())).collect();
        for (i, (attribute, _)) in pairs.iter().enumerate() {
            if pairs[..i].iter().any(|(earlier, _)| earlier == attribute) {
                return Err(GroupError::Repeated(attribute.clone()));
            }
        }
        Ok(Self(pairs))
    }

    /// The group of one attribute.
    pub fn of(attribute: &str, value: &str) -> Self {
        Self(vec![(attribute.to_owned(), value.to_owned())])
    }

    /// This group with one more attribute; where it has that attribute already, with another value.
    #[must_use]
    pub fn with(mut self, attribute: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(a, _)| a == attribute) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((attribute.to_owned(), value.to_owned())),
        }
        self
    }

    /// Whether it has a value for every attribute, none of them [`MISSING`](crate::MISSING): what can be asked for.
    pub fn is_complete(&self) -> bool {
        self.values().all(|value| value != crate::MISSING)
    }

    /// The value of `attribute`, if the group has one.
    pub fn get(&self, attribute: &str) -> Option<&str> {
        self.0.iter().find(|(a, _)| a == attribute).map(|(_, v)| v.as_str())
    }

    /// The (attribute, value) pairs in order.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(a, v)| (a.as_str(), v.as_str()))
    }

    /// The attributes in order.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(a, _)| a.as_str())
    }

    /// The values in the order of the attributes.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|(_, v)| v.as_str())
    }

    /// How many attributes the group fixes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the group fixes no attribute (it then holds every row).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of this group that fixes only `attributes`, in that order; attributes the group lacks are left out.
    pub fn project(&self, attributes: &[String]) -> Self {
        Self(attributes.iter().filter_map(|a| self.get(a).map(|v| (a.clone(), v.to_owned()))).collect())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(all)");
        }
        for (i, (attribute, value)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" & ")?;
            }
            write!(f, "{attribute}={value}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Group {
    type Err = GroupError;

    /// Reads what [`Display`](fmt::Display) writes. A value may hold `=` but not ` & `.
    fn from_str(text: &str) -> Result<Self, GroupError> {
        if text == "(all)" {
            return Ok(Self::default());
        }
        let pairs: Vec<(&str, &str)> = text
            .split(" & ")
            .map(|part| part.split_once('=').ok_or_else(|| GroupError::NotAPair(part.to_owned())))
            .collect::<Result<_, _>>()?;
        Self::new(pairs)
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (attribute, value) in &self.0 {
            map.serialize_entry(attribute, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Group;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attribute to value")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Group, M::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Group::new(pairs).map_err(serde::de::Error::custom)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A group that leaves some attributes free: `garment=coat & colour=*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Vec<(String, Option<String>)>);

impl Pattern {
    /// A pattern from (attribute, value or free) pairs.
    ///
    /// # Errors
    /// [`GroupError::Repeated`] where an attribute is named twice.
    pub fn new(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> Result<Self, GroupError> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        Group::new(pairs.iter().map(|(a, _)| (a.as_str(), "")))?;
        Ok(Self(pairs))
    }

    /// How many attributes are fixed.
    pub fn level(&self) -> usize {
        self.0.iter().filter(|(_, v)| v.is_some()).count()
    }

    /// Whether `group` has the pattern's value wherever the pattern fixes one.
    pub fn matches(&self, group: &Group) -> bool {
        self.0.iter().all(|(a, v)| v.as_deref().is_none_or(|v| group.get(a) == Some(v)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (attribute, value)) in self.0.iter().enumerate() {
            let separator = if i > 0 { " & " } else { "" };
            write!(f, "{separator}{attribute}={}", value.as_deref().unwrap_or("*"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coat() -> Group {
        Group::new([("garment", "coat"), ("colour", "dark blue")]).unwrap()
    }

    #[test]
    fn text_and_json_keep_the_order_of_the_attributes() {
        assert_eq!(coat().to_string(), "garment=coat & colour=dark blue");
        assert_eq!(coat().to_string().parse::<Group>().unwrap(), coat());
        let json = serde_json::to_string(&coat()).unwrap();
        assert_eq!(json, r#"{"garment":"coat","colour":"dark blue"}"#);
        assert_eq!(serde_json::from_str::<Group>(&json).unwrap(), coat());
    }

    #[test]
    fn an_attribute_named_twice_is_refused() {
        assert_eq!(Group::new([("a", "x"), ("a", "y")]), Err(GroupError::Repeated("a".into())));
        assert_eq!("a".parse::<Group>(), Err(GroupError::NotAPair("a".into())));
    }

    #[test]
    fn projection_keeps_the_asked_order_and_a_pattern_matches_where_it_fixes() {
        let order = ["colour".to_owned(), "garment".to_owned()];
        assert_eq!(coat().project(&order).to_string(), "colour=dark blue & garment=coat");
        let pattern = Pattern::new([("garment".into(), Some("coat".into())), ("colour".into(), None)]).unwrap();
        assert_eq!((pattern.level(), pattern.matches(&coat())), (1, true));
        assert_eq!(pattern.to_string(), "garment=coat & colour=*");
        assert!(!pattern.matches(&Group::new([("garment", "bag"), ("colour", "red")]).unwrap()));
    }
}
