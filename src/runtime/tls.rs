//! TLS for outgoing connections (`rediss://`, `https://`): rustls over the runtime's own socket.
//! TLS for clients is the task of a proxy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::rustls::crypto::aws_lc_rs;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use futures_rustls::rustls::{self, ClientConfig, RootCertStore};
pub use futures_rustls::{TlsConnector, client::TlsStream};

use crate::runtime::Socket;

/// Why TLS cannot be used, detected before the first connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "{file}: {error}; give a file of certificates in PEM form",
        file = .0.display(),
        error = .1
    )]
    File(PathBuf, rustls::pki_types::pem::Error),
    #[error(
        "{}: there is no certificate in it; give a file of certificates in PEM form",
        .0.display()
    )]
    Empty(PathBuf),
    #[error("{0}; give the certificate of the authority that signed the server's")]
    Setup(#[from] rustls::Error),
}

/// A connector for servers whose certificates were signed by the authorities in the file, or by the
/// public ones.
pub(crate) fn connector(authorities: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let roots = match authorities {
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
        Some(file) => read_authorities(file)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read_authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |error| TlsError::File(file.to_owned(), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(wrong)? {
        roots.add(certificate.map_err(wrong)?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Empty(file.to_owned()));
    }
    Ok(roots)
}

/// Performs the handshake with the server, whose certificate must be for `host`.
pub(crate) async fn handshake(
    connector: &TlsConnector,
    host: &str,
    socket: Socket,
) -> io::Result<TlsStream<Socket>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error: InvalidDnsNameError| io::Error::other(error))?;
    connector.connect(name, socket).await
}
