//! A server's certificate, loaded again when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not a PEM file of the expected kind", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("the certificate and the key do not belong together")]
    Tls(#[source] rustls::Error),
}

/// Content of both files.
type Files = (Vec<u8>, Vec<u8>);

pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// The files that were last tried, valid or not: an invalid pair is logged once.
    tried: Files,
}

impl Certificate {
    /// Fails for invalid files, before the first connection.
    pub(crate) fn read(chain: &Path, key: &Path) -> Result<Self, Error> {
        let tried = files(chain, key)?;
        let config = Arc::new(config(chain, key, &tried)?);
        Ok(Self { chain: chain.into(), key: key.into(), state: Mutex::new(State { config, tried }) })
    }

    /// The configuration for one connection. While the files do not belong together, for example during their
    /// replacement, the last valid pair stays in use.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match files(&self.chain, &self.key) {
            Ok(files) if files == state.tried => {}
            Ok(files) => {
                match config(&self.chain, &self.key, &files) {
                    Ok(config) => {
                        state.config = Arc::new(config);
                        tracing::info!("loaded the new certificate");
                    }
                    Err(error) => {
                        tracing::error!(
                            error = crate::error::chain(&error),
                            "cannot load the new certificate; the last valid one stays in use"
                        );
                    }
                }
                state.tried = files;
            }
            Err(error) => tracing::warn!(
                error = crate::error::chain(&error),
                "cannot load the new certificate; the last valid one stays in use"
            ),
        }
        state.config.clone()
    }
}

fn files(chain: &Path, key: &Path) -> Result<Files, Error> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::Read(path.into(), error));
    Ok((read(chain)?, read(key)?))
}

fn config(chain: &Path, key: &Path, (chain_pem, key_pem): &Files) -> Result<ServerConfig, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
    let certificates = certificates.map_err(|error| Error::Pem(chain.into(), error))?;
    let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| Error::Pem(key.into(), error))?;
    ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, private).map_err(Error::Tls)
}
