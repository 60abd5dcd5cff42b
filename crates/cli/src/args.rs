//! The command line as it is written.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure who is missing from a labelled image dataset, generate what is missing, check it, and prove whether it helped.
#[derive(Debug, Parser)]
#[command(name = "evenset", version, propagate_version = true, after_help = AFTER)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// More log lines on standard error (-vv for still more).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// No progress on standard error.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

const AFTER: &str = "\
Every verb but `status`, `schema`, `models`, `report RUN` and `generate --prompt` takes a job file, does the stages up to its own, and skips those that
are finished. A run that was stopped goes on when the same command is given again.

Exit codes: 0 done, 1 failed, 2 usage or job error, 3 done but a target was not reached, 130 interrupted.";

/// A job file and what changes in it.
#[derive(Debug, clap::Args)]
pub struct JobArgs {
    /// The job file (YAML); see `evenset schema` and docs/job-file.md.
    pub job: PathBuf,
    /// Overrides a key of the job, for example `--set plan.limits.images=100`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replaces an existing output folder that this job did not make.
    #[arg(long)]
    pub overwrite: bool,
    /// Ends the rounds where another one no longer helps a classifier on real images that were kept apart: short for
    /// `--set verify.stop_at_plateau=true`.
    #[arg(long)]
    pub stop_at_plateau: bool,
    /// Prints the result as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Measures and plans, shows what it would cost, and stops before anything is trained, generated or written;
    /// before a plan (`scan`), only says what would be read.
    #[arg(long)]
    pub dry_run: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Do the whole job: scan, audit, plan, generate and verify in rounds, write, evidence, report.
    Run(JobArgs),
    /// Read and decode every row; broken ones are listed with their reason.
    Scan(JobArgs),
    /// Count who is there, in every grouping, of a job's dataset or of any table of labels.
    Audit(Box<AuditArgs>),
    /// Work out how many images each group misses.
    Plan(JobArgs),
    /// Train the model and draw the first round's candidates; with --prompt, draw one image without a dataset.
    Generate(Box<GenerateArgs>),
    /// List the Stable Diffusion models on this machine, whether they are whole, and what each can do.
    Models {
        /// Folders and single .safetensors files to look at beside the Hugging Face hub's cache.
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Hashes the files of the hub's cache and compares them with their names.
        #[arg(long)]
        check: bool,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check candidates, in rounds, until the targets are met by accepted images.
    Verify(JobArgs),
    /// Write the balanced dataset, and start the hook if the job has one.
    Write(JobArgs),
    /// Train classifiers with and without the generated images and try them on real held-out images.
    Evidence(JobArgs),
    /// Make the report of a job, or show where the report of a finished run is (`--json` prints what it says).
    Report(ReportArgs),
    /// Show the stages of a run and how far each is.
    Status {
        /// The run folder.
        run: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the job file, for editors.
    Schema {
        /// Prints docs/job-file.md, the reference made from the schema, instead.
        #[arg(long)]
        markdown: bool,
    },
}

/// A job, or one image for a prompt.
#[derive(Debug, clap::Args)]
#[command(after_help = GENERATE_AFTER)]
pub struct GenerateArgs {
    /// The job file (YAML).
    #[arg(required_unless_present = "prompt", conflicts_with = "prompt")]
    pub job: Option<PathBuf>,
    /// Overrides a key of the job; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "prompt")]
    pub set: Vec<String>,
    /// Prints the result as JSON on standard output.
    #[arg(long, conflicts_with = "prompt")]
    pub json: bool,
    /// Measures and plans, shows what it would cost, and stops before anything is trained or generated.
    #[arg(long, conflicts_with = "prompt")]
    pub dry_run: bool,
    /// Draws this with a Stable Diffusion model.
    #[arg(long, value_name = "WORDS", requires = "model")]
    pub prompt: Option<String>,
    /// The model: a folder in diffusers' layout, a single .safetensors file, or a hub id (owner/name) in the local hub cache.
    #[arg(long, value_name = "MODEL", requires = "prompt")]
    pub model: Option<String>,
    /// Fetches the model from the hub where it is not in the local cache.
    #[arg(long, requires = "prompt")]
    pub download: bool,
    /// What the network in a single file predicts; needed for Stable Diffusion 2, whose files do not show it.
    #[arg(long, value_parser = ["epsilon", "v-prediction"], requires = "prompt")]
    pub prediction: Option<String>,
    /// What the image steers away from.
    #[arg(long, value_name = "WORDS", requires = "prompt")]
    pub negative: Option<String>,
    /// Where the noise comes from: the same seed gives the same image.
    #[arg(long, default_value_t = 0, requires = "prompt")]
    pub seed: u64,
    /// The PNG file that is written.
    #[arg(long, value_name = "FILE", default_value = "image.png", requires = "prompt")]
    pub out: PathBuf,
    /// Width in pixels; default: what the model was trained on.
    #[arg(long, requires = "prompt")]
    pub width: Option<u32>,
    /// Height in pixels.
    #[arg(long, requires = "prompt")]
    pub height: Option<u32>,
    /// The solver, such as euler or dpmpp-2m; default: the model's own.
    #[arg(long, requires = "prompt")]
    pub sampler: Option<String>,
    /// Steps from noise to image; default: 30, or the few of a distilled model.
    #[arg(long, requires = "prompt")]
    pub steps: Option<usize>,
    /// Guidance scale; default: 7.5, or none for a distilled model.
    #[arg(long, requires = "prompt", allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// Computes the whole network at every so manieth call alone, and takes its deep features from the call before at the
    /// others (DeepCache): faster, and a little coarser.
    #[arg(long, value_name = "INTERVAL", requires = "prompt")]
    pub deep_cache: Option<usize>,
    /// A small decoder in place of the model's own, such as madebyollin/taesd: a folder, or a hub id in the local cache.
    #[arg(long, value_name = "MODEL", requires = "prompt")]
    pub small_decoder: Option<String>,
    /// A LoRA, with its weight after a colon where it is not 1 (style.safetensors:0.8); may be given several times.
    #[arg(long, value_name = "FILE[:WEIGHT]", requires = "prompt")]
    pub lora: Vec<String>,
    /// Number type in which weights are kept: f32, or f16 and bf16 at half the memory.
    #[arg(long, default_value = "f32", value_parser = ["f32", "f16", "bf16"], requires = "prompt")]
    pub dtype: String,
    /// A picture to start from.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub image: Option<PathBuf>,
    /// How much of --image may change, above 0 and at most 1.
    #[arg(long, default_value_t = 0.7, requires = "image", allow_negative_numbers = true)]
    pub strength: f64,
    /// A picture that is white where --image is to be drawn anew and black where it stays.
    #[arg(long, value_name = "FILE", requires = "image")]
    pub mask: Option<PathBuf>,
    /// A ControlNet: a folder in diffusers' layout, or a hub id in the local cache. May be given several times, each with its
    /// --control-image.
    #[arg(long, value_name = "MODEL", requires = "prompt")]
    pub controlnet: Vec<String>,
    /// The picture that a --controlnet is shown: edges, depth, a pose.
    #[arg(long, value_name = "FILE", requires = "controlnet")]
    pub control_image: Vec<PathBuf>,
    /// What the effect of a --controlnet is multiplied with; once for all of them, or once for each. Default: 1.
    #[arg(long, value_name = "WEIGHT", requires = "controlnet", allow_negative_numbers = true)]
    pub control_weight: Vec<f64>,
}

const GENERATE_AFTER: &str = "\
Examples:
  evenset generate job.yaml
  evenset generate --prompt 'a red coat on a beach' --model stable-diffusion-v1-5/stable-diffusion-v1-5 --seed 3 --out x.png
  evenset generate --prompt 'a nurse in blue' --model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
      --controlnet lllyasviel/control_v11p_sd15_openpose --control-image pose.png";

/// What is audited, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = AUDIT_AFTER)]
pub struct AuditArgs {
    /// A job file, or a table of labels: CSV, JSONL or Parquet (a file, a folder, a pattern such as 'data/*.parquet', an
    /// address such as s3://bucket/labels.parquet, `-` for standard input), or a dataset of images.
    pub data: String,
    /// A second one: both are shown side by side.
    pub other: Option<String>,
    /// The attributes to count by; default: the job's, or guessed. May be given several times.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub by: Vec<String>,
    /// Count only rows for which this holds, for example 'age >= 18' or 'sex in f, m'. May be given several times.
    #[arg(long = "where", value_name = "CONDITION")]
    pub filters: Vec<String>,
    /// The attribute that a model is to learn; default: the job's, or guessed by its name.
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Read only this split (train, validation or test); default: the job's training split, else all rows.
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<String>,
    /// Column that says how many rows a row stands for.
    #[arg(long, value_name = "COLUMN")]
    pub count: Option<String>,
    /// A word that stands for a missing value, beside null and, in CSV, empty cells and NaN; '' for an empty text. May be
    /// given several times.
    #[arg(long, value_name = "WORD")]
    pub missing: Vec<String>,
    /// Look at the images of a dataset too: size, brightness, near-duplicates, diversity. (A job does unless it says
    /// `audit.images: false`.)
    #[arg(long)]
    pub images: bool,
    /// Rows that a combination needs to be covered; below 1, that share of all rows.
    #[arg(long, value_name = "ROWS")]
    pub threshold: Option<f64>,
    /// How many values a combination has at most.
    #[arg(long, value_name = "LEVEL")]
    pub max_level: Option<usize>,
    /// Writes the audit as a page for a browser.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Writes every group of every grouping as a Parquet table.
    #[arg(long, value_name = "FILE")]
    pub parquet: Option<PathBuf>,
    /// Overrides a key of the job, or of a table's audit (`--set audit.intervals=goodman`).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Prints the result as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Only says what would be read.
    #[arg(long)]
    pub dry_run: bool,
}

const AUDIT_AFTER: &str = "\
Examples:
  evenset audit labels.csv                               guess the attributes, and say what was guessed
  evenset audit labels.csv --by sex,age --where 'year >= 2020'
  evenset audit train.parquet test.parquet --by label    side by side
  duckdb -csv -c 'select ...' | evenset audit -          your own SQL
  evenset audit job.yaml --html audit.html               a page with every figure";

/// A job file or a run folder.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// A job file, or the folder of a run that has a report.
    pub job_or_run: PathBuf,
    /// Overrides a key of the job.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replaces an existing output folder that this job did not make.
    #[arg(long)]
    pub overwrite: bool,
    /// Ends the rounds where another one no longer helps a classifier on real images that were kept apart: short for
    /// `--set verify.stop_at_plateau=true`.
    #[arg(long)]
    pub stop_at_plateau: bool,
    /// Prints what the report says as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Measures and plans, shows what it would cost, and stops before anything is trained, generated or written.
    #[arg(long)]
    pub dry_run: bool,
}
