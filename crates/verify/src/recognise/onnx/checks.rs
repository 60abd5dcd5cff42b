//! What is looked at in an ONNX file before a byte of it is believed.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value as Type;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::{DatumType, Framework};

use super::input;
use crate::VerifyError;
use crate::recognise::ImageInput;

/// The longest file that is read: Protocol Buffers cannot be longer.
const LONGEST: u64 = 2 << 30;
/// Graphs inside graphs.
const DEEPEST: usize = 16;
/// The largest fixed batch: one image fills it.
const LARGEST_BATCH: usize = 64;
/// Whose operators the runtime knows under their plain names.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];
/// The largest part of a message that is a list.
const LISTED: usize = 12;

/// A file that has passed the checks.
pub(super) struct Inspected {
    pub(super) proto: ModelProto,
    /// The number type of the input.
    pub(super) number: DatumType,
    /// The batch that the file insists on, where it does.
    batch: Option<usize>,
}

impl Inspected {
    /// What to try, in this order: a batch and whether to pass over what the file says about values inside the network. A
    /// network for a fixed batch often works for one image too.
    pub(super) fn attempts(&self) -> Vec<(usize, bool)> {
        match self.batch {
            None | Some(1) => vec![(1, true), (1, false)],
            Some(batch) => vec![(1, true), (batch, true), (batch, false)],
        }
    }
}

/// The file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    let failed = |source| VerifyError::File { path: path.to_owned(), source };
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > LONGEST {
        let reason = match about.is_file() {
            true => format!("{} bytes are too many for an ONNX file", about.len()),
            false => "not a file; name the .onnx file itself".to_owned(),
        };
        return Err(VerifyError::Model { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

/// Whether the bytes have the hash that the job wants.
pub(super) fn hash(bytes: &[u8], wanted: Option<&str>) -> Result<(), String> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match found.eq_ignore_ascii_case(wanted.trim()) {
        true => Ok(()),
        false => {
            Err(format!("its SHA-256 is {found}, not {wanted}; name the right file, or write its hash in `sha256`"))
        }
    }
}

/// Parses the file and checks its weights, operators, input and output. The chosen output becomes the only one.
pub(super) fn inspect(
    bytes: &[u8],
    input: &ImageInput,
    classes: usize,
    output_name: Option<&str>,
) -> Result<Inspected, String> {
    let framework = tract_onnx::onnx();
    let mut proto = framework
        .proto_model_for_read(&mut &*bytes)
        .map_err(|error| format!("not an ONNX file, or cut off ({error:#}); export the model again"))?;
    let graph = proto.graph.as_mut().ok_or("not an ONNX model: it has no graph")?;
    let mut unknown = BTreeSet::new();
    walk(graph, 0, &mut |node| {
        let NodeProto { domain, op_type, .. } = node;
        if !DOMAINS.contains(&domain.as_str()) {
            unknown.insert(format!("{domain}.{op_type}"));
        } else if !framework.op_register.0.contains_key(op_type) {
            unknown.insert(op_type.clone());
        }
    })?;
    if !unknown.is_empty() {
        return Err(format!(
            "it uses operators that cannot be run here: {}; export the model with other operators (often another opset, or \
             without a custom layer)",
            listed(unknown.iter().map(String::as_str))
        ));
    }
    select_output(graph, output_name)?;
    let (number, batch) = check_input(graph, input)?;
    if classes == 0 {
        return Err("no classes are named; name them in `classes`, in the order of the model's outputs".into());
    }
    Ok(Inspected { proto, number, batch })
}

/// Visits the nodes of a graph and of the graphs in them, and checks every tensor.
fn walk(graph: &GraphProto, depth: usize, visit: &mut impl FnMut(&NodeProto)) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("its graphs lie in one another {depth} deep"));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err("it has sparse weights, which cannot be run here; export them as plain tensors".into());
    }
    for tensor in &graph.initializer {
        check_tensor(tensor)?;
    }
    for node in &graph.node {
        visit(node);
        for attribute in &node.attribute {
            for tensor in attribute.t.iter().chain(&attribute.tensors) {
                check_tensor(tensor)?;
            }
            for inner in attribute.g.iter().chain(&attribute.graphs) {
                walk(inner, depth + 1, visit)?;
            }
        }
    }
    Ok(())
}

/// A tensor's values must lie in the file, as many as its shape claims: memory is taken by the shape.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let name = &tensor.name;
    if tensor.data_location == Some(DataLocation::External as i32) || !tensor.external_data.is_empty() {
        return Err(format!(
            "weight `{name}` lies in another file, which is not read; put the weights into one file: python -c \"import onnx; \
             onnx.save(onnx.load('model.onnx'), 'whole.onnx')\""
        ));
    }
    let held = [
        tensor.raw_data.len(),
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
        tensor.string_data.len(),
    ];
    let claimed = tensor.dims.iter().try_fold(1usize, |all, dim| all.checked_mul(usize::try_from(*dim).ok()?));
    match claimed {
        Some(claimed) if claimed <= held.into_iter().max().unwrap_or(0) => Ok(()),
        _ => Err(format!("weight `{name}` claims the shape {:?} and holds less; the file is damaged", tensor.dims)),
    }
}

/// Leaves the output that is to be read.
fn select_output(graph: &mut GraphProto, wanted: Option<&str>) -> Result<(), String> {
    let names = listed(graph.output.iter().map(|output| output.name.as_str()));
    match wanted {
        Some(wanted) => graph.output.retain(|output| output.name == wanted),
        None if graph.output.len() > 1 => {
            return Err(format!("it has several outputs; name one of them in `output_name`: {names}"));
        }
        None => {}
    }
    match graph.output.is_empty() {
        true => Err(format!("it has no output `{}`; its outputs are: {names}", wanted.unwrap_or_default())),
        false => Ok(()),
    }
}

/// The number type of the input and the batch it insists on, once the input is known to take the images.
fn check_input(graph: &GraphProto, wanted: &ImageInput) -> Result<(DatumType, Option<usize>), String> {
    let is_weight = |input: &&ValueInfoProto| graph.initializer.iter().any(|weight| weight.name == input.name);
    let inputs: Vec<&ValueInfoProto> = graph.input.iter().filter(|input| !is_weight(input)).collect();
    let [input] = inputs.as_slice() else {
        let names = listed(inputs.iter().map(|input| input.name.as_str()));
        return Err(format!("it has {} inputs ({names}); a classifier of images has one", inputs.len()));
    };
    let Some(Type::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Err(format!("its input `{}` is no tensor", input.name));
    };
    // ONNX's numbers of FLOAT, UINT8 and FLOAT16.
    let number = match tensor.elem_type {
        1 => DatumType::F32,
        2 => DatumType::U8,
        10 => DatumType::F16,
        other => return Err(format!("its input has the number type {other}; float, float16 and uint8 can be fed")),
    };
    let Some(shape) = &tensor.shape else { return Ok((number, None)) };
    let dims: Vec<Option<i64>> = shape
        .dim
        .iter()
        .map(|dim| match dim.value {
            Some(Dimension::DimValue(value)) if value > 0 => Some(value),
            _ => None,
        })
        .collect();
    let needed = input::shape(wanted, 1);
    let fits = dims.len() == needed.len()
        && dims
            .iter()
            .zip(needed)
            .skip(1)
            .all(|(dim, needed)| dim.is_none_or(|dim| usize::try_from(dim) == Ok(needed)));
    if !fits {
        let shown: Vec<String> = dims.iter().map(|dim| dim.map_or("?".into(), |dim| dim.to_string())).collect();
        return Err(format!(
            "its input is [{}], but `input` describes [batch, {}, {}, {}]; correct `width`, `height`, `layout` or `colour`",
            shown.join(", "),
            needed[1],
            needed[2],
            needed[3]
        ));
    }
    match dims[0].map(usize::try_from) {
        None => Ok((number, None)),
        Some(Ok(batch)) if batch <= LARGEST_BATCH => Ok((number, Some(batch))),
        Some(_) => Err(format!("its batch is fixed to more than {LARGEST_BATCH} images; export it for one image")),
    }
}

fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.len() {
        count if count > LISTED => format!("{} and {} more", names[..LISTED].join(", "), count - LISTED),
        _ => names.join(", "),
    }
}
