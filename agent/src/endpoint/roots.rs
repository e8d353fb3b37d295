//! The system's CA certificates: read one at a time, and held once for all connections that trust them. It must
//! not know connections.
//!
//! Where they are is OpenSSL's way: `SSL_CERT_FILE` and `SSL_CERT_DIR`, else a bundle and directories that
//! systems have. A bundle of every public CA has 220 KiB, and what is kept of it 80.

use std::cell::RefCell;
use std::collections::HashSet;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

thread_local! {
    static SHARED: RefCell<Shared> = const {
        RefCell::new(Shared { store: Weak::new(), stale: false, generation: 0 })
    };
}

struct Shared {
    store: Weak<RootCertStore>,
    /// They are to be read again.
    stale: bool,
    /// Counts stores that were other ones than those before.
    generation: u32,
}

/// The system's CA certificates, those that others hold if there are any. The error is what went wrong first, if
/// there is none at all.
pub(super) fn system() -> Result<Arc<RootCertStore>, String> {
    SHARED.with_borrow_mut(|shared| {
        let held = shared.store.upgrade();
        if let Some(held) = &held
            && !shared.stale
        {
            return Ok(Arc::clone(held));
        }
        let store = read(&Places::of_this_system())?;
        shared.stale = false;
        if let Some(held) = held
            && held.roots == store.roots
        {
            return Ok(held);
        }
        let store = Arc::new(store);
        shared.store = Arc::downgrade(&store);
        shared.generation = shared.generation.wrapping_add(1);
        Ok(store)
    })
}

/// The next to ask for them has them read again.
pub(super) fn forget() {
    SHARED.with_borrow_mut(|shared| shared.stale = true);
}

/// Which of the stores [`system`] gave last.
pub(super) fn generation() -> u32 {
    SHARED.with_borrow(|shared| shared.generation)
}

/// Where CA certificates are.
struct Places {
    file: Option<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Places {
    /// What the environment names is all there is, whether it exists or not.
    fn of_this_system() -> Places {
        let file = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let directories: Vec<PathBuf> = env::var_os("SSL_CERT_DIR")
            .map(|all| env::split_paths(&all).filter(|path| path != Path::new("")).collect())
            .unwrap_or_default();
        if file.is_some() || !directories.is_empty() {
            return Places { file, directories };
        }
        let probed = openssl_probe::probe();
        Places { file: probed.cert_file, directories: probed.cert_dir }
    }
}

fn read(places: &Places) -> Result<RootCertStore, String> {
    let mut found = Found { store: RootCertStore::empty(), seen: HashSet::new(), error: None };
    if let Some(file) = &places.file {
        found.add_file(file);
    }
    for directory in &places.directories {
        found.add_directory(directory);
    }
    match found.store.is_empty() {
        false => {
            found.store.roots.shrink_to_fit();
            Ok(found.store)
        }
        true => Err(found.error.map(|error| format!(" ({error})")).unwrap_or_default()),
    }
}

struct Found {
    store: RootCertStore,
    /// Device and inode of the files that were read: directories hold several links to each.
    seen: HashSet<(u64, u64)>,
    /// What went wrong first.
    error: Option<String>,
}

impl Found {
    fn add_directory(&mut self, path: &Path) {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.note(path, &error),
        };
        for entry in entries.flatten() {
            self.add_file(&entry.path());
        }
    }

    /// Adds what rustls can read of a file; stores of systems hold a few that it can't.
    fn add_file(&mut self, path: &Path) {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            // A link that leads nowhere is no store's fault.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => return,
            Err(error) => return self.note(path, &error),
        };
        if !meta.is_file() || !self.seen.insert((meta.dev(), meta.ino())) {
            return;
        }
        let certificates = match CertificateDer::pem_file_iter(path) {
            Ok(certificates) => certificates,
            Err(error) => return self.note(path, &error),
        };
        for certificate in certificates {
            match certificate {
                Ok(certificate) => self.add(certificate),
                // What follows a block that is no certificate is trusted all the same; the iterator ends by
                // itself where the file can't be read.
                Err(error) => self.note(path, &error),
            }
        }
    }

    /// The bundle and the directory have mostly the same.
    fn add(&mut self, certificate: CertificateDer<'_>) {
        let roots = self.store.len();
        if self.store.add(certificate).is_err() {
            return;
        }
        if let Some((new, before)) = self.store.roots.split_last()
            && before.contains(new)
        {
            self.store.roots.truncate(roots);
        }
    }

    fn note(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        self.error.get_or_insert_with(|| format!("{}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> String {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert.pem()
    }

    fn count(file: Option<&Path>, directories: &[&Path]) -> Result<usize, String> {
        let directories = directories.iter().map(|path| path.to_path_buf()).collect();
        let store = read(&Places { file: file.map(Path::to_owned), directories })?;
        Ok(store.len())
    }

    #[test]
    fn each_certificate_counts_once_however_often_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (certificate("one"), certificate("two"));
        let bundle = dir.path().join("bundle.pem");
        fs::write(&bundle, format!("# one\n{one}\n# two\n{two}{one}")).unwrap();
        fs::write(dir.path().join("one.pem"), &one).unwrap();
        fs::write(dir.path().join("README"), "no certificate").unwrap();
        fs::create_dir(dir.path().join("deeper")).unwrap();
        std::os::unix::fs::symlink("bundle.pem", dir.path().join("0a1b2c3d.0")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert_eq!(count(Some(&bundle), &[]), Ok(2));
        assert_eq!(count(Some(&bundle), &[dir.path()]), Ok(2));
        fs::write(dir.path().join("three.pem"), certificate("three")).unwrap();
        assert_eq!(count(None, &[dir.path()]), Ok(3));
    }

    #[test]
    fn a_damaged_file_costs_itself() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good.pem");
        fs::write(&good, certificate("good")).unwrap();
        for (name, text) in [
            ("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB".to_owned()),
            ("letters.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".into()),
            ("der.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(count(None, &[dir.path()]), Ok(1));
        fs::remove_file(&good).unwrap();
        let why = count(None, &[dir.path()]).unwrap_err();
        assert!(why.contains(".pem: "), "{why}");
    }

    #[test]
    fn without_any_the_first_error_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(count(None, &[]), Err(String::new()));
        assert_eq!(count(None, &[dir.path()]), Err(String::new()));
        let missing = dir.path().join("missing.pem");
        let why = count(Some(&missing), &[&dir.path().join("nor this")]).unwrap_err();
        assert!(why.contains("missing.pem: No such file"), "{why}");
    }

    #[test]
    fn those_who_trust_the_system_share_one_store() {
        let Ok(one) = system() else { panic!("this machine has no CA certificates") };
        let two = system().unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        let generation = super::generation();
        forget();
        // Read again, they are the same, and so nobody holds them twice.
        assert!(Arc::ptr_eq(&one, &system().unwrap()));
        assert_eq!(super::generation(), generation);
        drop((one, two));
        assert!(SHARED.with_borrow(|shared| shared.store.upgrade().is_none()));
    }
}
