//! What a client proves itself and its server by: credentials and certificates, read from files and again when
//! those change. What can't be read any more, or is broken, leaves what was read before in use; that is said
//! once. It must not know connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;

use super::options::{Credentials, credentials, secret_files};
use super::roots;
use super::tunnel::basic;
use super::watched::Watched;
use super::{Options, OptionsError, ProxyUrl, SecretError, TlsError};

/// How often files are looked at while a connection stands, if there are requests.
const LOOK: Duration = Duration::from_secs(60);

pub(super) struct Keys {
    pub(super) credentials: Option<Credentials>,
    /// User and password for the proxy.
    pub(super) proxy_user: Option<(String, String)>,
    /// What of that a message must not show.
    proxy_hide: Vec<String>,
    tls: Option<Arc<ClientConfig>>,
    /// Which of the system's CA certificates `tls` trusts.
    roots: u32,
    secret_files: Watched,
    tls_files: Watched,
    looked: Instant,
    /// What was said of secrets and of certificates since they were good.
    trouble: [Option<String>; 2],
}

impl Keys {
    /// Reads all files, but the system's CA certificates, to see that they can be.
    pub(super) fn new(options: &Options, proxy: Option<&ProxyUrl>) -> Result<Keys, OptionsError> {
        let secret_files = Watched::new(secret_files(options));
        let tls = &options.tls;
        let of_tls = [&tls.ca_file, &tls.cert_file, &tls.key_file];
        let tls_files = Watched::new(of_tls.into_iter().flatten().cloned());
        let proxy_user = proxy_user(options, proxy).map_err(OptionsError::ProxySecret)?;
        let mut keys = Keys {
            credentials: credentials(&options.auth).map_err(OptionsError::Secret)?,
            proxy_hide: hide(proxy_user.as_ref()),
            proxy_user,
            tls: None,
            roots: 0,
            secret_files,
            tls_files,
            looked: Instant::now(),
            trouble: [None, None],
        };
        if options.url.is_tls() && (tls.ca_file.is_some() || tls.cert_file.is_some()) {
            keys.tls = Some(tls.load().map_err(OptionsError::Tls)?);
        }
        Ok(keys)
    }

    /// Whether a connection that stands has to look at the files before its next request.
    pub(super) fn are_due(&self) -> bool {
        self.looked.elapsed() >= LOOK
    }

    /// Reads again what has changed. True if certificates are other ones: connections made by the old ones have
    /// to go.
    pub(super) fn look(&mut self, options: &Options, proxy: Option<&ProxyUrl>) -> bool {
        self.looked = Instant::now();
        if self.secret_files.changed() {
            let read = self.read_secrets(options, proxy).map(|_| ());
            self.note(0, options, read);
        }
        if !self.tls_files.changed() || self.tls.is_none() {
            return false;
        }
        let loaded = options.tls.load();
        let good = loaded.is_ok();
        let noted = loaded.map(|config| self.tls = Some(config));
        self.note(1, options, noted);
        good
    }

    /// Before a connection is made: secrets are read whatever their files look like, and the certificates
    /// if they have changed.
    pub(super) fn before_connection(&mut self, options: &Options, proxy: Option<&ProxyUrl>) {
        self.look(options, proxy);
        let read = self.read_secrets(options, proxy).map(|_| ());
        self.note(0, options, read);
    }

    /// Whether the credentials are other ones than before.
    pub(super) fn read_secrets(
        &mut self,
        options: &Options,
        proxy: Option<&ProxyUrl>,
    ) -> Result<bool, SecretError> {
        let fresh = credentials(&options.auth)?;
        let header = |of: &Option<Credentials>| of.as_ref().map(|c| c.header.clone());
        let changed = header(&fresh) != header(&self.credentials);
        self.credentials = fresh;
        self.proxy_user = proxy_user(options, proxy)?;
        self.proxy_hide = hide(self.proxy_user.as_ref());
        Ok(changed)
    }

    /// What TLS needs; the system's CA certificates are read by the first call.
    pub(super) fn tls(&mut self, options: &Options) -> Result<Arc<ClientConfig>, TlsError> {
        // Whoever read them again holds other ones now; nobody needs both.
        let is_old = options.tls.trusts_the_system() && self.roots != roots::generation();
        if let Some(config) = &self.tls
            && !is_old
        {
            return Ok(Arc::clone(config));
        }
        match (options.tls.load(), &self.tls) {
            (Ok(config), _) => {
                self.roots = roots::generation();
                Ok(Arc::clone(self.tls.insert(config)))
            }
            (Err(_), Some(before)) => Ok(Arc::clone(before)),
            (Err(error), None) => Err(error),
        }
    }

    /// A server has a certificate of a CA that the system did not know when it was asked: the next connection
    /// asks it again.
    pub(super) fn forget_system_roots(&mut self, options: &Options) {
        if options.tls.ca_file.is_none() {
            self.tls = None;
            roots::forget();
        }
    }

    /// What a message must never show.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &String> {
        let own = self.credentials.iter().flat_map(|credentials| &credentials.hide);
        own.chain(&self.proxy_hide)
    }

    fn note<E: fmt::Display>(&mut self, which: usize, options: &Options, result: Result<(), E>) {
        let Some(trouble) = self.trouble.get_mut(which) else { return };
        match result {
            Ok(()) => {
                if trouble.take().is_some() {
                    log::info!("{}: the files are good again", options.url);
                }
            }
            Err(error) => {
                let text = error.to_string();
                if trouble.as_ref() != Some(&text) {
                    log::warn!("{}: {text}; what was read before stays in use", options.url);
                }
                *trouble = Some(text);
            }
        }
    }
}

/// A proxy's password, and what stands for it in a request.
fn hide(user: Option<&(String, String)>) -> Vec<String> {
    let Some((user, password)) = user else { return Vec::new() };
    let header = basic(user, password);
    let encoded = header.strip_prefix("Basic ").unwrap_or(&header);
    vec![password.clone(), encoded.to_owned()]
}

fn proxy_user(
    options: &Options,
    proxy: Option<&ProxyUrl>,
) -> Result<Option<(String, String)>, SecretError> {
    let Some((proxy, user)) = proxy.and_then(|proxy| Some((proxy, proxy.user()?))) else {
        return Ok(None);
    };
    let password = match &options.proxy.password {
        Some(secret) => secret.read()?,
        None => proxy.password().unwrap_or_default().to_owned(),
    };
    Ok(Some((user.to_owned(), password)))
}
