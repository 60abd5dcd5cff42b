//! The vector that every residual block sees, from timesteps and whatever else a network is told.

use candle_core::{DType, Result, Tensor, bail};

use super::super::time::{Classes, Embedding, Features};
use super::{Conditions, UNet2DConditionConfig, config};
use crate::ops;
use crate::weights::Scope;

/// The layers that make it.
#[derive(Clone, Debug)]
pub(in super::super) struct ConditionEmbedding {
    features: Features,
    time_embedding: Embedding,
    class_embedding: Option<Classes>,
    text_time: Option<TextTime>,
    /// A SiLU behind the sum.
    silu_after_sum: bool,
}

/// SDXL's pooled text and sizes.
#[derive(Clone, Debug)]
struct TextTime {
    features: Features,
    embedding: Embedding,
    /// The width of what goes in.
    inputs: usize,
}

impl ConditionEmbedding {
    pub(in super::super) fn new(config: &UNet2DConditionConfig, scope: &Scope) -> crate::Result<Self> {
        let features = Features::new(&scope.sub("time_proj"), config.features)?;
        let width = config.features.width();
        let time_embedding = Embedding::with_condition(
            &scope.sub("time_embedding"),
            width,
            config.embedding,
            config.condition,
            config.silu_after_embedding,
        )?;
        let class = |plan| Classes::new(&scope.sub("class_embedding"), plan, width, config.embedding);
        let text_time = |plan: config::TextTimePlan| {
            let embedding = Embedding::new(&scope.sub("add_embedding"), plan.inputs, config.embedding)?;
            let features = Features::new(&scope.sub("add_time_proj"), plan.features)?;
            Ok::<_, crate::Error>(TextTime { features, embedding, inputs: plan.inputs })
        };
        Ok(Self {
            features,
            time_embedding,
            class_embedding: config.class.map(class).transpose()?,
            text_time: config.text_time.map(text_time).transpose()?,
            silu_after_sum: config.silu_after_sum,
        })
    }

    /// The sum of all embeddings, `[batch, width]` in `dtype`.
    pub(in super::super) fn forward(
        &self,
        timesteps: &Tensor,
        conditions: &Conditions<'_>,
        dtype: DType,
    ) -> Result<Tensor> {
        let condition = conditions.timestep.map(|x| x.to_dtype(dtype)).transpose()?;
        let features = self.features.forward(timesteps)?.to_dtype(dtype)?;
        let mut sum = self.time_embedding.forward_with(&features, condition.as_ref())?;
        match (&self.class_embedding, conditions.class) {
            (Some(classes), Some(class)) => sum = sum.add(&classes.forward(class, &self.features, dtype)?)?,
            (None, None) => {}
            (Some(_), None) => bail!("this network needs a class for each image"),
            (None, Some(_)) => bail!("this network takes no classes"),
        }
        match (&self.text_time, conditions.pooled_text, conditions.time_ids) {
            (Some(text_time), Some(text), Some(ids)) => sum = sum.add(&text_time.forward(text, ids, dtype)?)?,
            (None, None, None) => {}
            (Some(_), ..) => bail!("this network needs a pooled text embedding and the time ids for each image"),
            (None, ..) => bail!("this network takes neither a pooled text embedding nor time ids"),
        }
        if self.silu_after_sum { ops::silu(&sum) } else { Ok(sum) }
    }
}

impl TextTime {
    fn forward(&self, text: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
        let (batch, width) = text.dims2()?;
        let (rows, _) = ids.dims2()?;
        let numbers = self.features.forward(&ids.flatten_all()?)?.reshape((rows, ()))?.to_dtype(dtype)?;
        let inputs = self.inputs;
        if rows != batch || width + numbers.dim(1)? != inputs {
            bail!("a pooled text of {:?} and time ids {:?} do not make {inputs} features", text.dims(), ids.dims());
        }
        self.embedding.forward(&Tensor::cat(&[&text.to_dtype(dtype)?, &numbers], 1)?)
    }
}
