//! Objects in S3, Google Cloud Storage, Azure and behind HTTP, read a range at a time.
//!
//! Credentials come from the environment under the names that each service's own tools use (`AWS_ACCESS_KEY_ID`,
//! `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`, ...).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, parse_url_opts};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use crate::error::DataError;

/// Whether a path is the address of an object rather than a file.
pub(crate) fn is_remote(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| {
        ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https"].contains(&scheme)
    })
}

/// A store and where in it an address points.
pub(crate) struct Store {
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
    /// `s3://bucket`, `https://host`: what stands before a path.
    root: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)
    }
}

impl Store {
    /// Connects to the store of an address; gives the path in it too.
    pub fn of(address: &str) -> Result<(Arc<Self>, Path), DataError> {
        let failed = |problem: String| DataError::Remote { address: address.to_owned(), problem };
        let url = Url::parse(address).map_err(|error| failed(format!("is not an address: {error}")))?;
        let mut options: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        if url.scheme() == "http" {
            options.push(("allow_http".to_owned(), "true".to_owned()));
        }
        let (store, path) = parse_url_opts(&url, options).map_err(|error| failed(error.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        let shown = url.path().trim_end_matches(path.as_ref()).trim_end_matches('/');
        let root = format!("{}://{}{shown}", url.scheme(), url.host_str().unwrap_or_default());
        let root = match url.port() {
            Some(port) => format!("{}://{}:{port}{shown}", url.scheme(), url.host_str().unwrap_or_default()),
            None => root,
        };
        Ok((Arc::new(Self { store, runtime, root }), path))
    }

    /// The address of a path in the store.
    pub fn address(&self, path: &Path) -> String {
        format!("{}/{path}", self.root)
    }

    /// The object at a path.
    pub fn object(self: &Arc<Self>, path: &Path) -> Result<Object, DataError> {
        let meta = self.runtime.block_on(self.store.head(path)).map_err(|error| self.failed(path, &error))?;
        Ok(self.of_meta(meta))
    }

    /// The objects directly below a path and the names of its folders, sorted.
    pub fn list(self: &Arc<Self>, folder: &Path) -> Result<(Vec<Object>, Vec<Path>), DataError> {
        let listing = self.runtime.block_on(self.store.list_with_delimiter(Some(folder)));
        let mut listing = listing.map_err(|error| self.failed(folder, &error))?;
        listing.objects.sort_by(|a, b| a.location.cmp(&b.location));
        listing.common_prefixes.sort();
        Ok((listing.objects.into_iter().map(|meta| self.of_meta(meta)).collect(), listing.common_prefixes))
    }

    fn of_meta(self: &Arc<Self>, meta: ObjectMeta) -> Object {
        Object { bytes: meta.size, store: Arc::clone(self), meta }
    }

    fn failed(&self, path: &Path, error: &object_store::Error) -> DataError {
        DataError::Remote { address: self.address(path), problem: error.to_string() }
    }
}

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    pub bytes: u64,
    store: Arc<Store>,
    meta: ObjectMeta,
}

impl Object {
    /// Its path in the store.
    pub fn path(&self) -> &Path {
        &self.meta.location
    }

    /// Its address, for messages.
    pub fn address(&self) -> String {
        self.store.address(&self.meta.location)
    }

    /// `length` bytes from `start` on.
    pub fn read(&self, start: u64, length: usize) -> Result<Bytes, DataError> {
        let path = &self.meta.location;
        let read = self.store.store.get_range(path, start..start + length as u64);
        let bytes = self.store.runtime.block_on(read).map_err(|error| self.store.failed(path, &error))?;
        if bytes.len() != length {
            let problem = format!("gave {} bytes where {length} were asked for", bytes.len());
            return Err(DataError::Remote { address: self.address(), problem });
        }
        Ok(bytes)
    }

    /// Changes when the object does.
    pub fn version(&self) -> String {
        let tag = self.meta.e_tag.as_deref().or(self.meta.version.as_deref()).unwrap_or_default();
        format!("{tag} {} {}", self.bytes, self.meta.last_modified.to_rfc3339())
    }
}
