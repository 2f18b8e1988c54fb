//! What is read from folders: an image's accounts, and the host's state.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::input::Input;

/// A folder in memory for this process.
pub fn folder() -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let memory = Path::new("/dev/shm");
            let place = if memory.is_dir() {
                memory.to_owned()
            } else {
                std::env::temp_dir()
            };
            tempfile::Builder::new()
                .prefix("hull-fuzz-")
                .tempdir_in(place)
                .expect("a folder")
        })
        .path()
        .to_owned()
}

/// An image's /etc/passwd and /etc/group, and who is looked up.
pub fn passwd(data: &[u8]) {
    let mut input = Input::new(data);
    let wanted = String::from_utf8_lossy(input.short()).into_owned();
    let etc = folder().join("etc");
    fs::create_dir_all(&etc).expect("room in memory");
    let len = input.u16().into();
    fs::write(etc.join("passwd"), input.bytes(len)).expect("room in memory");
    fs::write(etc.join("group"), input.rest()).expect("room in memory");
    container::fuzzing::user(&wanted, &folder());
}

/// State files: the bridge's, leases, and what the host's tools say.
pub fn state(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let dir = folder();
    match kind % 3 {
        0 => {
            fs::write(dir.join("bridge.json"), input.rest()).expect("room in memory");
            network::fuzzing::state(&dir);
        }
        1 => {
            let leases = dir.join("leases");
            fs::create_dir_all(&leases).expect("room in memory");
            fs::write(leases.join("10.0.0.7"), input.short()).expect("room in memory");
            let name = String::from_utf8_lossy(input.short()).replace(['/', '\0'], "");
            if !matches!(&*name, "" | "." | "..") {
                // A name that is too long for a file is none.
                let _ = fs::write(leases.join(name), input.rest());
            }
            network::fuzzing::leases(&dir);
            fs::remove_dir_all(&leases).expect("it is ours");
        }
        _ => network::fuzzing::tools(&String::from_utf8_lossy(input.rest())),
    }
}

/// Leaves nothing to execute for the rest of this process.
pub fn hide_programs() {
    // Empty PATHs mean the working folder to some.
    crate::threads::set_path("/nowhere");
}
