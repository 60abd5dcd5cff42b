//! The settings of a hosted model.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::Base;
use super::fields::{self, FieldValue};
use super::key::KeyVariable;
use super::ledger::Spent;
use crate::error::{DiffusionError, Result};

/// Longest side of an image.
const LONGEST_SIDE: u32 = 8192;
/// Amounts of money are counted in millionths of the currency, so that sums are exact.
const MILLION: f64 = 1e6;

/// A model behind an HTTP address that speaks OpenAI's images API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address of the API without `/images/...`, for example `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model's name, as the server knows it.
    pub model: String,
    /// Width and height of the images in pixels, for example `1024x1024`.
    pub size: ImageSize,
    /// What may be spent in all, over every run of the job. Nothing is requested without it.
    pub budget: Budget,
    /// Name of the environment variable that holds the key (never the key itself). Default: no key is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<KeyVariable>,
    /// Further fields of every request, for example `{quality: high, style: natural}`. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, FieldValue>,
    /// Field that takes a seed, where the server has one, for example `seed`. Default: none; images cannot be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_field: Option<String>,
    /// Requests in flight at the same time, 1 to 64. Default: 4.
    #[serde(default = "default::concurrency")]
    pub concurrency: usize,
    /// Seconds after which one request is given up, from the first byte sent to the last one read. Default: 120.
    #[serde(default = "default::timeout_seconds")]
    pub timeout_seconds: f64,
    /// Further tries of a request that met a busy or failing server, 0 to 20. Default: 4.
    #[serde(default = "default::retries")]
    pub retries: u32,
    /// Seconds before the second try; they double with each further one. Default: 1.
    #[serde(default = "default::first_wait_seconds")]
    pub first_wait_seconds: f64,
    /// The most seconds between two tries, whatever the server asks for. Default: 60.
    #[serde(default = "default::longest_wait_seconds")]
    pub longest_wait_seconds: f64,
    /// The most bytes that are read of one answer. Default: 33554432 (32 MiB).
    #[serde(default = "default::max_answer_bytes")]
    pub max_answer_bytes: usize,
    /// Whether `http://` is taken for other hosts than this one; the key then travels unencrypted. Default: false.
    #[serde(default)]
    pub allow_http: bool,
}

/// What may be spent in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The most images that the server may be asked for, with those that failed after they were begun.
    pub images: u64,
    /// The most money, in `currency`. Needs `price_per_image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
    /// What the server charges for one image of this size and quality, in `currency`. Needs `money`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_per_image: Option<f64>,
    /// The currency of both, for example `USD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// Width and height in pixels, written `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageSize {
    /// Width in pixels, from 1 to 8192.
    pub width: u32,
    /// Height in pixels, from 1 to 8192.
    pub height: u32,
}

mod default {
    pub(super) fn concurrency() -> usize {
        4
    }
    pub(super) fn timeout_seconds() -> f64 {
        120.0
    }
    pub(super) fn retries() -> u32 {
        4
    }
    pub(super) fn first_wait_seconds() -> f64 {
        1.0
    }
    pub(super) fn longest_wait_seconds() -> f64 {
        60.0
    }
    pub(super) fn max_answer_bytes() -> usize {
        32 << 20
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl From<ImageSize> for String {
    fn from(size: ImageSize) -> Self {
        size.to_string()
    }
}

impl TryFrom<String> for ImageSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=LONGEST_SIDE).contains(side));
        let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        let (width, height) = sides.ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!("`{shown}` is not WIDTHxHEIGHT in pixels, each from 1 to {LONGEST_SIDE}, for example 1024x1024")
        })?;
        Ok(Self { width, height })
    }
}

impl Budget {
    /// Images that it pays for after this was spent.
    pub fn left(&self, spent: &Spent) -> u64 {
        let images = self.images.saturating_sub(spent.images);
        let money = self.money().saturating_sub(spent.millionths);
        money.checked_div(self.price()).map_or(images, |paid| images.min(paid))
    }

    /// The price of one image in millionths of the currency, rounded up; 0 where no price is given.
    pub(super) fn price(&self) -> u64 {
        (self.price_per_image.unwrap_or(0.0) * MILLION - 1e-6).ceil().max(0.0) as u64
    }

    /// The most money in millionths of the currency, rounded down; no limit where none is given.
    pub(super) fn money(&self) -> u64 {
        self.money.map_or(u64::MAX, |money| (money * MILLION + 1e-6).floor() as u64)
    }

    fn validate(&self) -> Result<(), String> {
        if !(1..=100_000_000).contains(&self.images) {
            return Err(format!("`images: {}` is not between 1 and 100000000", self.images));
        }
        let (price, money) = match (self.price_per_image, self.money) {
            (None, None) if self.currency.is_none() => return Ok(()),
            (None, None) => return Err("`currency` is given without `price_per_image` and `money`".into()),
            (Some(_), None) => return Err("`price_per_image` is given; say with `money` what may be spent".into()),
            (None, Some(_)) => return Err("`money` is given; say with `price_per_image` what an image costs".into()),
            (Some(price), Some(money)) => (price, money),
        };
        if self.currency.as_ref().is_none_or(|name| !(1..=16).contains(&name.chars().count())) {
            return Err("`money` needs its `currency`, a name of 1 to 16 letters, for example USD".into());
        }
        if !(0.0..=1e6).contains(&price) {
            return Err(format!("`price_per_image: {price}` is not between 0 and 1000000"));
        }
        if !(0.0..=1e9).contains(&money) {
            return Err(format!("`money: {money}` is not between 0 and 1000000000"));
        }
        if self.price() > self.money() {
            return Err(format!("`money: {money}` does not pay for one image at {price}"));
        }
        Ok(())
    }
}

impl HttpConfig {
    /// The whole time of one request.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds)
    }

    /// Says which setting is impossible.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] names the key and what it must be. Nothing that could be a key of the server is
    /// repeated in it.
    pub fn validate(&self) -> Result<()> {
        let check = |fine: bool, key: &'static str, reason: &dyn Fn() -> String| match fine {
            true => Ok(()),
            false => Err(DiffusionError::Setting { key, reason: reason() }),
        };
        let named = |key| move |reason| DiffusionError::Setting { key, reason };
        let between = |key, value: f64, low: f64, high: f64| {
            check((low..=high).contains(&value), key, &|| format!("{value} is not between {low} and {high} seconds"))
        };
        Base::parse(&self.base_url, self.allow_http).map_err(named("base_url"))?;
        check((1..=256).contains(&self.model.trim().len()), "model", &|| "it is not a name of 1 to 256 bytes".into())?;
        self.budget.validate().map_err(named("budget"))?;
        if let Some(name) = &self.seed_field {
            fields::check_name(name).map_err(named("seed_field"))?;
        }
        fields::check(&self.fields, self.seed_field.as_deref()).map_err(named("fields"))?;
        let ImageSize { width, height } = self.size;
        let side = 1..=LONGEST_SIDE;
        check(side.contains(&width) && side.contains(&height), "size", &|| {
            format!("{} has a side that is not between 1 and {LONGEST_SIDE}", self.size)
        })?;
        check((1..=64).contains(&self.concurrency), "concurrency", &|| {
            format!("{} is not between 1 and 64", self.concurrency)
        })?;
        check(self.retries <= 20, "retries", &|| format!("{} is not between 0 and 20", self.retries))?;
        between("timeout_seconds", self.timeout_seconds, 0.001, 3600.0)?;
        between("first_wait_seconds", self.first_wait_seconds, 0.0, 3600.0)?;
        between("longest_wait_seconds", self.longest_wait_seconds, 0.0, 3600.0)?;
        check((1024..=1 << 30).contains(&self.max_answer_bytes), "max_answer_bytes", &|| {
            format!("{} is not between 1024 and {}", self.max_answer_bytes, 1 << 30)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(changes: &Value) -> Value {
        let mut whole = json!({
            "base_url": "https://api.example.com/v1", "model": "m", "size": "64x32", "budget": {"images": 5},
        });
        for (key, value) in changes.as_object().unwrap() {
            whole[key] = value.clone();
        }
        whole
    }

    fn read(changes: Value) -> Result<HttpConfig, serde_json::Error> {
        serde_json::from_value(written(&changes))
    }

    fn said(changes: Value) -> String {
        read(changes).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn a_configuration_reads_with_defaults_and_writes_what_it_read() {
        let config = read(json!({"fields": {"quality": "high", "steps": 4}, "key_env": "MY_KEY"})).unwrap();
        config.validate().unwrap();
        assert_eq!((config.concurrency, config.retries, config.timeout_seconds), (4, 4, 120.0));
        assert_eq!((config.size.width, config.size.height), (64, 32));
        let again: HttpConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_keys_and_sizes_are_refused() {
        assert!(read(json!({"api_key": "x"})).unwrap_err().to_string().contains("unknown field `api_key`"));
        for size in ["1024", "auto", "0x5", "9000x9000", "1x2x3", "-1x4"] {
            assert!(read(json!({"size": size})).unwrap_err().to_string().contains("1024x1024"), "{size}");
        }
    }

    #[test]
    fn a_key_in_place_of_its_variable_is_refused_and_not_repeated() {
        let error = read(json!({"key_env": "sk-abcdefghijklmnopqrstuvwx"})).unwrap_err().to_string();
        assert!(error.contains("looks like a key") && !error.contains("abcdef"), "{error}");
    }

    #[test]
    fn nothing_starts_without_a_budget() {
        let mut without = written(&json!({}));
        without.as_object_mut().unwrap().remove("budget");
        assert!(serde_json::from_value::<HttpConfig>(without).unwrap_err().to_string().contains("`budget`"));
        assert!(read(json!({"budget": {}})).unwrap_err().to_string().contains("`images`"));
        assert!(said(json!({"budget": {"images": 0}})).starts_with("`budget`: `images: 0` is not"));
        assert!(said(json!({"budget": {"images": 5, "price_per_image": 0.04}})).contains("say with `money`"));
        assert!(said(json!({"budget": {"images": 5, "money": 4}})).contains("say with `price_per_image`"));
        let unnamed = json!({"budget": {"images": 5, "money": 4, "price_per_image": 0.04}});
        assert!(said(unnamed).contains("`currency`"));
        let poor = json!({"budget": {"images": 5, "money": 0.03, "price_per_image": 0.04, "currency": "USD"}});
        assert!(said(poor).contains("does not pay for one image"));
    }

    #[test]
    fn money_is_counted_exactly_in_millionths() {
        let budget = |price, money| Budget {
            images: 1,
            money: Some(money),
            price_per_image: Some(price),
            currency: Some("USD".into()),
        };
        assert_eq!((budget(0.04, 10.0).price(), budget(0.04, 10.0).money()), (40_000, 10_000_000));
        assert_eq!((budget(0.0000001, 0.29).price(), budget(0.1, 0.29).money()), (1, 290_000));
        assert_eq!(budget(0.0, 1.0).price(), 0);
    }

    #[test]
    fn impossible_settings_are_named() {
        assert!(said(json!({"base_url": "http://api.example.com"})).starts_with("`base_url`: "));
        assert!(said(json!({"model": " "})).starts_with("`model`: "));
        assert!(said(json!({"seed_field": "prompt"})).starts_with("`seed_field`: "));
        assert!(said(json!({"fields": {"n": 2}})).starts_with("`fields`: `n`"));
        assert!(said(json!({"concurrency": 0})).starts_with("`concurrency`: 0 is not"));
        assert!(said(json!({"retries": 21})).starts_with("`retries`: 21 is not"));
        assert!(said(json!({"timeout_seconds": 0})).starts_with("`timeout_seconds`: 0 is not"));
        assert!(said(json!({"longest_wait_seconds": 1e9})).starts_with("`longest_wait_seconds`: "));
        assert!(said(json!({"max_answer_bytes": 1})).starts_with("`max_answer_bytes`: 1 is not"));
    }

    #[test]
    fn the_schema_has_a_line_of_doc_for_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(HttpConfig)).unwrap();
        let documented = |properties: &Value| {
            properties.as_object().unwrap().iter().for_each(|(key, value)| {
                assert!(value["description"].as_str().is_some_and(|text| !text.is_empty()), "{key}");
            });
        };
        documented(&schema["properties"]);
        documented(&schema["$defs"]["Budget"]["properties"]);
        assert_eq!(schema["required"], json!(["base_url", "model", "size", "budget"]));
    }
}
