//! What the columns hold, in the words of the Hugging Face library `datasets`.
//!
//! `datasets` writes them into the Arrow schema under the key `huggingface`:
//! `{"info":{"features":{"image":{"_type":"Image"},"label":{"names":["a","b"],"_type":"ClassLabel"}}}}`.

use arrow_schema::{DataType, Schema, TimeUnit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The key in the schema's metadata.
pub(crate) const METADATA_KEY: &str = "huggingface";

/// What one column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Feature {
    /// Image files: struct<bytes: binary, path: string>.
    Image,
    /// Indices into class names; int64, -1 or null where unknown.
    ClassLabel {
        /// The class names by index.
        names: Vec<String>,
    },
    /// A scalar.
    Value {
        /// Its type as `datasets` writes it: `string`, `int64`, `float32`, `bool`.
        dtype: String,
    },
    /// Any other feature type, as its JSON stood in the file; it is written back unchanged.
    Other(Value),
}

/// The columns and what they hold, in column order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features(Vec<(String, Feature)>);

impl Features {
    /// No columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `column` holds.
    pub fn get(&self, column: &str) -> Option<&Feature> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, feature)| feature)
    }

    /// The class names of `column`, if it is a [`Feature::ClassLabel`].
    pub fn class_names(&self, column: &str) -> Option<&[String]> {
        match self.get(column) {
            Some(Feature::ClassLabel { names }) => Some(names),
            _ => None,
        }
    }

    /// Says what `column` holds: in its place if it is known, else as the last column.
    pub fn insert(&mut self, column: impl Into<String>, feature: Feature) {
        let column = column.into();
        match self.0.iter_mut().find(|(name, _)| *name == column) {
            Some((_, known)) => *known = feature,
            None => self.0.push((column, feature)),
        }
    }

    /// Forgets `column`.
    pub fn remove(&mut self, column: &str) -> Option<Feature> {
        let place = self.0.iter().position(|(name, _)| name == column)?;
        Some(self.0.remove(place).1)
    }

    /// The columns in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Feature)> {
        self.0.iter().map(|(name, feature)| (name.as_str(), feature))
    }

    /// How many columns are described.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no column is described.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The features of a schema: what its `huggingface` metadata says, and the obvious ones of the columns it does not
    /// name. Columns of types without an obvious feature (lists, structs) are left out; `datasets` infers those itself.
    pub fn of_schema(schema: &Schema) -> Self {
        let said = schema.metadata().get(METADATA_KEY).map(|text| Self::from_metadata_json(text)).unwrap_or_default();
        let mut features = Self::default();
        for field in schema.fields() {
            match said.get(field.name()) {
                Some(feature) => features.insert(field.name(), feature.clone()),
                None => {
                    if let Some(feature) = Feature::of_type(field.data_type()) {
                        features.insert(field.name(), feature);
                    }
                }
            }
        }
        features
    }

    /// The features in the text of a schema's `huggingface` metadata; none where the text is not of that form.
    pub fn from_metadata_json(text: &str) -> Self {
        let parsed: Value = serde_json::from_str(text).unwrap_or_default();
        parsed.pointer("/info/features").and_then(Value::as_object).map(Self::from_object).unwrap_or_default()
    }

    /// The text of a schema's `huggingface` metadata.
    pub fn to_metadata_json(&self) -> String {
        json!({"info": {"features": self.to_object()}}).to_string()
    }

    /// `{"column": {"_type": ..}, ..}` in column order, as it stands in `dataset_info`.
    pub fn to_object(&self) -> Map<String, Value> {
        self.iter().map(|(name, feature)| (name.to_owned(), feature.to_json())).collect()
    }

    fn from_object(object: &Map<String, Value>) -> Self {
        Self(object.iter().map(|(name, value)| (name.clone(), Feature::from_json(value))).collect())
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_object().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|object| Self::from_object(&object))
    }
}

impl Feature {
    /// The feature that a column of this Arrow type has when nothing is said about it; none for nested types.
    pub fn of_type(data_type: &DataType) -> Option<Self> {
        let dtype = match data_type {
            DataType::Boolean => "bool".to_owned(),
            DataType::Utf8 | DataType::Utf8View => "string".to_owned(),
            DataType::LargeUtf8 => "large_string".to_owned(),
            DataType::Binary | DataType::BinaryView => "binary".to_owned(),
            DataType::LargeBinary => "large_binary".to_owned(),
            DataType::Date32 => "date32".to_owned(),
            DataType::Date64 => "date64".to_owned(),
            DataType::Timestamp(unit, None) => format!("timestamp[{}]", unit_name(unit)),
            DataType::Timestamp(unit, Some(zone)) => format!("timestamp[{}, tz={zone}]", unit_name(unit)),
            DataType::Struct(fields) if is_image_struct(fields) => return Some(Self::Image),
            other if other.is_integer() || other.is_floating() => other.to_string().to_lowercase(),
            _ => return None,
        };
        Some(Self::Value { dtype })
    }

    /// As `datasets` writes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Image => json!({"_type": "Image"}),
            Self::ClassLabel { names } => json!({"names": names, "_type": "ClassLabel"}),
            Self::Value { dtype } => json!({"dtype": dtype, "_type": "Value"}),
            Self::Other(raw) => raw.clone(),
        }
    }

    fn from_json(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let known = match text("_type") {
            Some("Image") => Some(Self::Image),
            Some("ClassLabel") => class_names(value.get("names")).map(|names| Self::ClassLabel { names }),
            Some("Value") => text("dtype").map(|dtype| Self::Value { dtype: dtype.to_owned() }),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(value.clone()))
    }
}

fn class_names(names: Option<&Value>) -> Option<Vec<String>> {
    names?.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

fn unit_name(unit: &TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// struct<bytes, path> in any order and of any binary and text type.
pub(crate) fn is_image_struct(fields: &arrow_schema::Fields) -> bool {
    let has = |name: &str, fits: fn(&DataType) -> bool| {
        fields.iter().any(|field| field.name() == name && fits(field.data_type()))
    };
    fields.len() <= 2 && (has("bytes", is_binary) || (fields.len() == 1 && has("path", is_text)))
}

pub(crate) fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::Field;

    #[test]
    fn the_metadata_text_is_what_datasets_writes() {
        let mut features = Features::new();
        features.insert("image", Feature::Image);
        features.insert("label", Feature::ClassLabel { names: vec!["a".into(), "b".into()] });
        features.insert("text", Feature::Value { dtype: "string".into() });
        let text = features.to_metadata_json();
        assert_eq!(
            text,
            r#"{"info":{"features":{"image":{"_type":"Image"},"label":{"names":["a","b"],"_type":"ClassLabel"},"text":{"dtype":"string","_type":"Value"}}}}"#
        );
        assert_eq!(Features::from_metadata_json(&text), features);
        assert_eq!(serde_json::from_value::<Features>(serde_json::to_value(&features).unwrap()).unwrap(), features);
    }

    #[test]
    fn a_feature_type_without_a_name_here_passes_through_as_it_stands() {
        let text = r#"{"info":{"features":{"z":{"feature":{"dtype":"int32","_type":"Value"},"_type":"Sequence"},"a":[{"dtype":"int8","_type":"Value"}]}}}"#;
        let features = Features::from_metadata_json(text);
        assert!(matches!(features.get("z"), Some(Feature::Other(_))));
        assert_eq!(features.to_metadata_json(), text);
    }

    #[test]
    fn columns_that_the_metadata_does_not_name_get_the_feature_of_their_type() {
        let image = DataType::Struct(vec![Field::new("bytes", DataType::Binary, true)].into());
        let list = DataType::List(Field::new("item", DataType::Int8, true).into());
        let schema = Schema::new(vec![
            Field::new("image", image, true),
            Field::new("n", DataType::UInt16, true),
            Field::new("x", DataType::Float32, true),
            Field::new("list", list, true),
        ]);
        let features = Features::of_schema(&schema);
        assert_eq!(features.get("image"), Some(&Feature::Image));
        assert_eq!(features.get("n"), Some(&Feature::Value { dtype: "uint16".into() }));
        assert_eq!(features.get("x"), Some(&Feature::Value { dtype: "float32".into() }));
        assert_eq!(features.get("list"), None);
    }

    #[test]
    fn metadata_of_another_form_says_nothing() {
        for text in ["", "{", "[]", r#"{"info":null}"#, r#"{"info":{"features":[1]}}"#] {
            assert!(Features::from_metadata_json(text).is_empty(), "{text}");
        }
    }
}
