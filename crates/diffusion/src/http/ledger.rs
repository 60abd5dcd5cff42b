//! What was spent, over every run: counted before a request is sent, so that no kill and no lost answer loses count.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use evenset_data::atomic::write_file;
use serde::{Deserialize, Serialize};

use super::config::Budget;
use crate::error::{DiffusionError, Result};

/// What a job has spent in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Images that the server may have charged for.
    pub images: u64,
    /// Their price in millionths of the currency.
    pub millionths: u64,
    /// The currency; none where no price was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// Where the count is kept between runs. One process at a time may hold a ledger.
pub trait Ledger: Send + Sync {
    /// What was spent so far; nothing where nothing was stored.
    ///
    /// # Errors
    /// Where it cannot be told. An unreadable count is never nothing.
    fn load(&self) -> Result<Spent>;

    /// Keeps the count, so that it outlives the process, before it returns.
    ///
    /// # Errors
    /// Where it cannot be kept; then no request is sent.
    fn store(&self, spent: &Spent) -> Result<()>;
}

/// A ledger in a small JSON file.
#[derive(Clone, Debug)]
pub struct FileLedger {
    path: PathBuf,
}

impl FileLedger {
    /// The ledger at `path`; its folder must exist, the file need not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Ledger for FileLedger {
    fn load(&self) -> Result<Spent> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Spent::default()),
            Err(error) => return Err(DiffusionError::file(&self.path)(error)),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| DiffusionError::Ledger { path: self.path.clone(), reason: error.to_string() })
    }

    fn store(&self, spent: &Spent) -> Result<()> {
        let text = serde_json::to_string(spent)
            .map_err(|error| DiffusionError::Ledger { path: self.path.clone(), reason: error.to_string() })?;
        Ok(write_file(&self.path, format!("{text}\n").as_bytes())?)
    }
}

/// The budget and what is spent of it.
pub(super) struct Account {
    budget: Budget,
    ledger: Box<dyn Ledger>,
    spent: Mutex<Spent>,
}

impl Account {
    /// Reads the ledger.
    pub fn open(budget: Budget, ledger: Box<dyn Ledger>) -> Result<Self> {
        let mut spent = ledger.load()?;
        if spent.millionths > 0 && budget.currency.is_some() && spent.currency != budget.currency {
            let known = spent.currency.as_deref().unwrap_or("no currency");
            let reason = format!("the ledger of this job counts in {known}; give the budget in the same");
            return Err(DiffusionError::Setting { key: "budget", reason });
        }
        if spent.currency.is_none() {
            spent.currency.clone_from(&budget.currency);
        }
        Ok(Self { budget, ledger, spent: Mutex::new(spent) })
    }

    pub fn spent(&self) -> Spent {
        self.lock().clone()
    }

    /// Images that the rest of the budget pays for.
    pub fn left(&self) -> u64 {
        self.budget.left(&self.lock())
    }

    /// Counts one image before it is requested.
    pub fn charge(&self) -> Result<()> {
        let mut spent = self.lock();
        let images = spent.images.saturating_add(1);
        let millionths = spent.millionths.saturating_add(self.budget.price());
        if images > self.budget.images || millionths > self.budget.money() {
            return Err(self.exhausted(&spent));
        }
        self.keep(&mut spent, images, millionths)
    }

    /// Takes one image back that the server has certainly not charged for.
    pub fn refund(&self) -> Result<()> {
        let mut spent = self.lock();
        let images = spent.images.saturating_sub(1);
        let millionths = spent.millionths.saturating_sub(self.budget.price());
        self.keep(&mut spent, images, millionths)
    }

    fn keep(&self, spent: &mut Spent, images: u64, millionths: u64) -> Result<()> {
        let changed = Spent { images, millionths, currency: spent.currency.clone() };
        self.ledger.store(&changed)?;
        *spent = changed;
        Ok(())
    }

    fn exhausted(&self, spent: &Spent) -> DiffusionError {
        let amount = |images: u64, millionths: u64| match &self.budget.currency {
            Some(currency) => format!("{images} images for {} {currency}", money(millionths)),
            None => format!("{images} images"),
        };
        let limit = amount(self.budget.images, self.budget.money());
        DiffusionError::Budget { spent: amount(spent.images, spent.millionths), limit }
    }

    /// A count is whole whatever happened to the thread that held it.
    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An amount with at least two decimals.
fn money(millionths: u64) -> String {
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    let zeros = text.len() - text.trim_end_matches('0').len();
    text[..text.len() - zeros.min(4)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(images: u64, money: f64) -> Budget {
        Budget { images, money: Some(money), price_per_image: Some(0.04), currency: Some("USD".into()) }
    }

    fn open(folder: &tempfile::TempDir, budget: Budget) -> Result<Account> {
        Account::open(budget, Box::new(FileLedger::new(folder.path().join("spent.json"))))
    }

    #[test]
    fn money_ends_a_budget_before_images_do_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let account = open(&folder, budget(10, 0.09)).unwrap();
        assert_eq!(account.left(), 2);
        account.charge().unwrap();
        account.charge().unwrap();
        assert_eq!(account.left(), 0);
        let said = account.charge().unwrap_err().to_string();
        assert!(said.contains("2 images for 0.08 USD of 10 images for 0.09 USD"), "{said}");
        account.refund().unwrap();
        assert_eq!((account.spent().images, account.spent().millionths), (1, 40_000));

        let account = open(&folder, budget(1, 100.0)).unwrap();
        assert_eq!((account.left(), account.spent().images), (0, 1));
        assert!(matches!(account.charge(), Err(DiffusionError::Budget { .. })));
    }

    #[test]
    fn a_damaged_ledger_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spent.json");
        for text in ["", "{}", r#"{"images":1,"millionths":-1}"#, r#"{"images":1,"millionths":1,"x":1}"#] {
            fs::write(&path, text).unwrap();
            let said = FileLedger::new(&path).load().unwrap_err().to_string();
            assert!(said.contains("spent.json") && said.contains("images"), "{said}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(FileLedger::new(&path).load().unwrap(), Spent::default());
    }

    #[test]
    fn a_ledger_in_another_currency_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        open(&folder, budget(10, 1.0)).unwrap().charge().unwrap();
        let other = Budget { currency: Some("EUR".into()), ..budget(10, 1.0) };
        let said = open(&folder, other).err().unwrap().to_string();
        assert!(said.contains("counts in USD"), "{said}");
    }

    #[test]
    fn where_the_count_cannot_be_kept_nothing_is_spent() {
        struct Full;
        impl Ledger for Full {
            fn load(&self) -> Result<Spent> {
                Ok(Spent::default())
            }
            fn store(&self, _spent: &Spent) -> Result<()> {
                Err(DiffusionError::file("spent.json".as_ref())(io::ErrorKind::StorageFull.into()))
            }
        }
        let account = Account::open(budget(10, 1.0), Box::new(Full)).unwrap();
        assert!(account.charge().is_err());
        assert_eq!(account.spent().images, 0);
    }

    #[test]
    fn amounts_are_written_with_two_decimals_or_as_many_as_they_need() {
        let written: Vec<String> = [0, 40_000, 1_500_000, 10_000_000, 1, 12_345_600].map(money).into();
        assert_eq!(written, ["0.00", "0.04", "1.50", "10.00", "0.000001", "12.3456"]);
    }
}
