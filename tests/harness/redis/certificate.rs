//! Certificates for TLS, made by `openssl`: those of an authority, and of a Redis server on this machine.

use crate::home::Home;
use crate::wait::wait_until;
use std::path::{Path, PathBuf};

/// A certificate authority, and the certificate of a server on `localhost` and 127.0.0.1 that it has signed. Both are in a
/// directory that is removed when the value is dropped.
#[derive(Debug)]
pub struct Certificate {
    home: Home,
}

/// The first script of the keeper (see `Home::keep`). It creates the file `complete` last.
const BEGIN: &str = r#"
    cd "$1" && {
        new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        openssl req -x509 $new -days 30 -subj /CN=authority -keyout authority.key -out authority.crt
        openssl req $new -subj /CN=localhost -keyout server.key -out server.csr
        echo 'subjectAltName = DNS:localhost, IP:127.0.0.1' >names
        openssl x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 30 \
            -extfile names -out server.crt
    } 2>log && mv server.csr complete
"#;

impl Certificate {
    /// Generates a certificate.
    ///
    /// # Panics
    /// When there is no `openssl`.
    pub fn generate() -> Self {
        let certificate = Self { home: Home::keep(BEGIN, "", &[]) };
        wait_until("the certificate", || certificate.file("complete").exists());
        certificate
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Returns the directory of the files `server.crt` and `server.key`.
    pub(super) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// Returns the file with the certificate of the authority. Every account can read it.
    pub fn authority(&self) -> PathBuf {
        self.file("authority.crt")
    }
}
