//! The rows of the balanced dataset: the source's own columns, and where each row came from.
//!
//! A real row keeps every column of its source. A generated row has its image and the values that were asked for; what
//! nobody asked for is null. Columns of the source with the name of a provenance column are replaced by ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    UInt64Array, new_null_array,
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use evenset_core::Group;
use evenset_data::{Dataset, Feature, Features, Format, Table};

use crate::error::{PipelineError, Result};
use crate::generator::GeneratorCard;
use crate::job::Role;
use crate::rounds::Accepted;
use crate::stages::scan::Row;

/// What is the same for all generated rows of a run.
#[derive(Clone, Debug)]
pub struct Origin {
    /// What drew them.
    pub generator: Option<GeneratorCard>,
    /// Fingerprint of the model's training.
    pub config_hash: Option<String>,
    /// Fingerprint of the plan.
    pub plan_hash: String,
    /// The attributes that make a group.
    pub grouping: Vec<String>,
}

/// Names and types of the provenance columns, in order.
fn provenance_fields() -> Vec<Field> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let of = |name: &str, kind: DataType| Field::new(name, kind, true);
    vec![
        of("is_synthetic", DataType::Boolean),
        text("source_id"),
        text("group"),
        of("round", DataType::Int64),
        of("seed", DataType::UInt64),
        text("prompt"),
        text("negative_prompt"),
        text("model_id"),
        text("model_sha256"),
        text("lora_sha256"),
        text("scheduler"),
        of("steps", DataType::Int64),
        of("guidance", DataType::Float64),
        text("config_hash"),
        text("plan_hash"),
        text("verify_scores"),
        text("verdict"),
        text("reject_reason"),
        text("reviewer"),
        of("sample_weight", DataType::Float64),
    ]
}

/// The columns of the balanced dataset.
pub struct Layout {
    /// The Arrow schema.
    pub schema: SchemaRef,
    /// What the columns hold, in the words of `datasets`.
    pub features: Features,
    /// The column of the images.
    pub image: String,
    attributes: Vec<String>,
    source: Vec<Field>,
    origin: Origin,
    /// Weight of a training row by its group, in text.
    weights: BTreeMap<String, f64>,
}

impl Layout {
    /// The columns for rows of this dataset, with these attribute columns.
    pub fn of(dataset: &Dataset, attributes: &[String], origin: Origin) -> Result<Self> {
        let provenance = provenance_fields();
        let mut features = Features::default();
        let mut source = Vec::new();
        for field in dataset.schema().fields() {
            if provenance.iter().any(|ours| ours.name() == field.name()) {
                continue;
            }
            let feature = dataset.features.get(field.name()).cloned();
            let attribute = attributes.contains(field.name());
            let field = match &feature {
                _ if *field.name() == dataset.image => Field::new(field.name(), image_type(), true),
                Some(Feature::ClassLabel { .. }) if attribute => Field::new(field.name(), DataType::Int64, true),
                _ if attribute => Field::new(field.name(), attribute_type(field.data_type()), true),
                _ => field.as_ref().clone().with_nullable(true),
            };
            let feature = match feature {
                Some(feature @ (Feature::Image | Feature::ClassLabel { .. })) => Some(feature),
                other if attribute => {
                    Some(Feature::of_type(field.data_type()).unwrap_or(other.unwrap_or_else(text_value)))
                }
                Some(other) => Some(other),
                None if *field.name() == dataset.image => Some(Feature::Image),
                None => Feature::of_type(field.data_type()),
            };
            // Pictures of another type than images are written as they stand, for the reader to infer.
            let is_written = |feature: &Feature| *feature != Feature::Image || *field.data_type() == image_type();
            if let Some(feature) = feature.filter(is_written) {
                features.insert(field.name().clone(), feature);
            }
            source.push(field);
        }
        // Derived attributes are no columns of the source: they become columns, so that generated rows have their group.
        for derived in attributes {
            if source.iter().all(|field| field.name() != derived) {
                features.insert(derived.clone(), text_value());
                source.push(Field::new(derived, DataType::Utf8, true));
            }
        }
        for field in &provenance {
            if let Some(feature) = Feature::of_type(field.data_type()) {
                features.insert(field.name().clone(), feature);
            }
        }
        let schema = Arc::new(Schema::new(source.iter().cloned().chain(provenance).collect::<Vec<_>>()));
        let (image, attributes) = (dataset.image.clone(), attributes.to_vec());
        Ok(Self { schema, features, image, attributes, source, origin, weights: BTreeMap::new() })
    }

    /// Weighs the training rows so that every group counts as much as any other, 1 on average.
    pub fn weigh<'a>(&mut self, real: impl Iterator<Item = &'a Row>, accepted: &[Accepted]) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let groups = real.filter_map(|row| self.group_of(row));
        for group in groups.chain(accepted.iter().map(|a| a.candidate.request.group.to_string())) {
            *counts.entry(group).or_default() += 1;
        }
        let (rows, groups) = (counts.values().sum::<u64>() as f64, counts.len() as f64);
        self.weights = counts.into_iter().map(|(group, count)| (group, rows / (groups * count as f64))).collect();
    }

    /// The weight of a row of this group: 1 where the row is not for training, or in no group.
    fn weight(&self, role: Role, group: Option<&str>) -> f64 {
        let known = group.and_then(|group| self.weights.get(group));
        if role == Role::Train { known.copied().unwrap_or(1.0) } else { 1.0 }
    }

    /// Rows of the source as they are, with their provenance. `rows` are places in `table`, in order.
    pub fn real(&self, table: &Table, rows: &[&Row]) -> Result<RecordBatch> {
        let places: UInt64Array = rows.iter().map(|row| row.row as u64).collect();
        let take = |array: &dyn Array| {
            arrow_select::take::take(array, &places, None).map_err(|error| self.wrong(&error.to_string()))
        };
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in &self.source {
            let name = field.name();
            let column = if self.attributes.contains(name) {
                let at = self.attributes.iter().position(|attribute| attribute == name).unwrap_or_default();
                self.attribute(field, rows.iter().map(|row| row.values[at].as_deref()))?
            } else if *name == self.image {
                let images: Vec<_> = rows.iter().map(|row| table.image(row.row)).collect();
                image_column(images.iter().map(|image| image.map(|(bytes, path)| (bytes, path.map(str::to_owned)))))
            } else {
                let column =
                    table.batch.column_by_name(name).ok_or_else(|| self.wrong(&format!("no column `{name}`")))?;
                take(column)?
            };
            columns.push(column);
        }
        let n = rows.len();
        let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
        let groups: Vec<Option<String>> = rows.iter().map(|row| self.group_of(row)).collect();
        for field in provenance_fields() {
            columns.push(match field.name().as_str() {
                "is_synthetic" => Arc::new(BooleanArray::from(vec![false; n])),
                "source_id" => Arc::new(StringArray::from_iter_values(&ids)),
                "group" => Arc::new(groups.iter().map(Option::as_deref).collect::<StringArray>()),
                "sample_weight" => Arc::new(Float64Array::from_iter_values(
                    rows.iter().zip(&groups).map(|(row, group)| self.weight(row.role, group.as_deref())),
                )),
                _ => new_null_array(field.data_type(), n),
            });
        }
        self.batch(columns)
    }

    /// Generated rows with the files of their images, in the same order. They have no split: whoever writes them writes
    /// them to `train`.
    pub fn generated(&self, accepted: &[Accepted], files: &[(Format, Vec<u8>)]) -> Result<RecordBatch> {
        let n = accepted.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for field in &self.source {
            let name = field.name();
            columns.push(if *name == self.image {
                image_column(accepted.iter().zip(files).map(|(a, (format, bytes))| {
                    let path = format!("generated-{}.{}", a.candidate.request.id, format.extension());
                    Some((bytes.as_slice(), Some(path)))
                }))
            } else if self.attributes.contains(name) {
                self.attribute(field, accepted.iter().map(|a| a.candidate.request.group.get(name)))?
            } else {
                new_null_array(field.data_type(), n)
            });
        }
        let texts = |value: &dyn Fn(&Accepted) -> Option<String>| -> ArrayRef {
            Arc::new(accepted.iter().map(value).collect::<StringArray>())
        };
        let origin = &self.origin;
        let card = origin.generator.as_ref();
        let of_card = |value: &dyn Fn(&GeneratorCard) -> Option<String>| texts(&|_| card.and_then(value));
        for field in provenance_fields() {
            columns.push(match field.name().as_str() {
                "is_synthetic" => Arc::new(BooleanArray::from(vec![true; n])),
                "source_id" => texts(&|a| Some(a.candidate.start.as_ref()?.guide?.to_string())),
                "group" => texts(&|a| Some(a.candidate.request.group.to_string())),
                "round" => Arc::new(
                    accepted.iter().map(|a| Some(i64::from(a.candidate.request.round))).collect::<Int64Array>(),
                ),
                "seed" => Arc::new(accepted.iter().map(|a| Some(a.candidate.request.seed.0)).collect::<UInt64Array>()),
                "prompt" => texts(&|a| a.candidate.request.prompt.clone()),
                "negative_prompt" => texts(&|a| a.candidate.request.negative_prompt.clone()),
                "model_id" => of_card(&|card| Some(card.id.clone())),
                "model_sha256" => of_card(&|card| card.sha256.clone()),
                "lora_sha256" => of_card(&|card| card.lora_sha256.clone()),
                "scheduler" => of_card(&|card| Some(card.sampler.clone())),
                "steps" => Arc::new(Int64Array::from(vec![card.and_then(|card| i64::try_from(card.steps?).ok()); n])),
                "guidance" => Arc::new(Float64Array::from_iter(accepted.iter().map(|a| {
                    let own = a.candidate.start.as_ref().and_then(|start| start.guidance);
                    own.or_else(|| card?.guidance)
                }))),
                "config_hash" => texts(&|_| origin.config_hash.clone()),
                "plan_hash" => texts(&|_| Some(origin.plan_hash.clone())),
                "verify_scores" => texts(&|a| serde_json::to_string(&a.verdict.scores).ok()),
                "verdict" => texts(&|_| Some("accepted".to_owned())),
                "sample_weight" => Arc::new(Float64Array::from_iter_values(
                    accepted.iter().map(|a| self.weight(Role::Train, Some(&a.candidate.request.group.to_string()))),
                )),
                _ => new_null_array(field.data_type(), n),
            });
        }
        self.batch(columns)
    }

    /// The group of a row, in text; none where a value is missing.
    pub fn group_of(&self, row: &Row) -> Option<String> {
        let value = |name: &String| {
            let at = self.attributes.iter().position(|attribute| attribute == name)?;
            row.values[at].clone().map(|value| (name.clone(), value))
        };
        let pairs: Option<Vec<_>> = self.origin.grouping.iter().map(value).collect();
        Group::new(pairs?).ok().filter(|group| !group.is_empty()).map(|group| group.to_string())
    }

    /// Attribute values in the column's own type.
    fn attribute<'a>(&self, field: &Field, values: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef> {
        if let Some(Feature::ClassLabel { names }) = self.features.get(field.name()) {
            let code = |value: Option<&str>| {
                value.and_then(|value| names.iter().position(|name| name == value)).and_then(|i| i64::try_from(i).ok())
            };
            return Ok(Arc::new(values.map(code).collect::<Int64Array>()));
        }
        Ok(match field.data_type() {
            DataType::Int64 => Arc::new(values.map(|value| value?.parse().ok()).collect::<Int64Array>()),
            DataType::Boolean => Arc::new(values.map(|value| value?.parse().ok()).collect::<BooleanArray>()),
            _ => Arc::new(values.collect::<StringArray>()),
        })
    }

    fn batch(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| self.wrong(&error.to_string()))
    }

    fn wrong(&self, why: &str) -> PipelineError {
        PipelineError::Changed(format!("its columns do not fit together ({why})"))
    }
}

fn image_type() -> DataType {
    DataType::Struct(image_fields())
}

fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

fn image_column<'a>(images: impl Iterator<Item = Option<(&'a [u8], Option<String>)>>) -> ArrayRef {
    let (bytes, paths): (Vec<Option<&[u8]>>, Vec<Option<String>>) =
        images.map(|image| image.map_or((None, None), |(bytes, path)| (Some(bytes), path))).unzip();
    let columns: Vec<ArrayRef> = vec![Arc::new(BinaryArray::from(bytes)), Arc::new(StringArray::from(paths))];
    Arc::new(StructArray::new(image_fields(), columns, None))
}

fn attribute_type(source: &DataType) -> DataType {
    match source {
        DataType::Boolean => DataType::Boolean,
        kind if kind.is_integer() => DataType::Int64,
        _ => DataType::Utf8,
    }
}

fn text_value() -> Feature {
    Feature::Value { dtype: "string".into() }
}
