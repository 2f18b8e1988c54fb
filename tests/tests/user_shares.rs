//! Volumes and directories of an ordinary user in VMs: owners and modes are as the container has set them, and on the host all
//! of it is the user's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;
use tests::{Hull, Outcome, USER};

/// The attribute in which owners are recorded (docs/design.md).
const RECORD: &str = "user.hull.owner";

/// A store and a folder of a user without rights, who may use /dev/kvm.
struct Mine {
    hull: Hull,
    folder: TempDir,
}

impl Mine {
    fn new() -> Result<Mine> {
        Self::over(Hull::of_user()?)
    }

    fn over(hull: Hull) -> Result<Mine> {
        let folder = tempfile::tempdir()?;
        give(folder.path())?;
        Ok(Mine { hull, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the user's.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text)?;
        Ok(chown(self.path(name), Some(USER), Some(USER))?)
    }

    /// `hull ARGS…`, as the user.
    fn hull<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Outcome> {
        self.hull.run(arguments)
    }

    /// What a script prints that has the volume `data` at /srv and the folder at /w.
    fn script(&self, options: &[&str], script: &str) -> Result<String> {
        let folder = format!("{}:/w", self.folder.path().display());
        let shares = ["run", "--rm", "-v", "data:/srv", "-v", &folder];
        let words = shares.into_iter().chain(options.iter().copied());
        let ran = self.hull(words.chain(["demo", "sh", "-c", script]))?;
        Ok(ran.expect_code(0).stdout())
    }

    /// Where the volume's content is.
    fn data(&self) -> PathBuf {
        self.hull.root().join("volumes/data/_data")
    }
}

/// Whose a file is on the host, and its mode.
fn on_host(path: impl AsRef<Path>) -> Result<(u32, u32, u32)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

#[test]
fn a_volume_and_a_directory_keep_owners_and_modes_for_the_next_container() -> Result<()> {
    let mine = Mine::new()?;
    mine.write("from-host", "host")?;
    fs::set_permissions(mine.path("from-host"), PermissionsExt::from_mode(0o640))?;
    fs::write(mine.path("of-root"), "of another")?;
    let make = "set -e; umask 022; cd /srv; echo one > plain; echo two > owned; chown 77:88 owned; chmod 4750 owned; \
         mkdir -m 0 closed; mkdir -m 2775 group; chown 0:99 group; chmod 2775 group; : > group/inner; chown 77:88 closed; \
         ln -s owned link; chown -h 77:88 link; mkfifo fifo; echo secret > /w/hidden; chmod 0 /w/hidden; cat /w/from-host; \
         ! mknod disk b 8 0 2>&-; touch /w/touched; chown 77 /w/touched";
    assert_eq!(mine.script(&[], make)?, "host");
    // The same as root sees it in a container, but on the host all is the user's, and can be reached by them.
    let data = mine.data();
    for (path, mode) in [
        (data.join("plain"), 0o644),
        (data.join("owned"), 0o750),
        (data.join("closed"), 0o700),
        (data.join("group"), 0o775),
        (mine.path("hidden"), 0o600),
        (mine.path("touched"), 0o644),
    ] {
        assert_eq!(on_host(&path)?, (USER, USER, mode), "{}", path.display());
    }
    mine.write("from-host", "changed")?;
    fs::set_permissions(mine.path("touched"), PermissionsExt::from_mode(0o755))?;
    let bad = XattrFlags::empty();
    setxattr(data.join("plain"), RECORD, b"1:0:0:644", bad)?;
    let look = "cd /srv; stat -c '%n %u %g %a' owned closed group group/inner fifo /w/hidden /w/from-host /w/touched \
         /w/of-root; stat -c '%u %g' link; cat /w/from-host; cat plain 2>&1; cat /w/hidden";
    let seen = mine.script(&[], look)?;
    let expected = "owned 77 88 4750\nclosed 77 88 0\ngroup 0 99 2775\ngroup/inner 0 99 644\nfifo 0 0 644\n/w/hidden 0 0 0\n\
         /w/from-host 0 0 640\n/w/touched 77 0 755\n/w/of-root 65534 65534 644\n0 0\n\
         changedcat: can't open 'plain': Input/output error\nsecret";
    assert_eq!(seen, expected);
    // Nothing in it keeps its user from removing it.
    mine.hull(["volume", "rm", "data"])?.expect_code(0);
    ensure!(!data.exists());
    assert_eq!(mine.hull(["volume", "ls", "-q"])?.stdout(), "");
    // What the image has there is in an empty volume first, for this container and those that borrow it.
    let filled = [
        "run",
        "--name",
        "first",
        "-v",
        "filled:/etc",
        "demo",
        "true",
    ];
    mine.hull(filled)?.expect_code(0);
    let borrowed = [
        "run",
        "--rm",
        "--volumes-from",
        "first",
        "demo",
        "stat",
        "-c",
    ];
    let seen = mine.hull(borrowed.into_iter().chain(["%u %g", "/etc/passwd"]))?;
    assert_eq!(seen.expect_code(0).stdout(), "0 0");
    let passwd = mine.hull.root().join("volumes/filled/_data/passwd");
    assert_eq!(on_host(passwd)?, (USER, USER, 0o644));
    mine.hull(["rm", "first"])?.expect_code(0);
    mine.hull(["volume", "rm", "filled"])?.expect_code(0);
    mine.hull.expect_nothing_left()
}

#[test]
fn a_read_only_directory_is_read_only_and_nothing_leads_out_of_one() -> Result<()> {
    let mine = Mine::new()?;
    let inner = mine.path("in");
    fs::create_dir(&inner)?;
    mine.write("in/file", "kept")?;
    mine.write("secret", "of the host")?;
    chown(&inner, Some(USER), Some(USER))?;
    symlink("../secret", inner.join("up"))?;
    symlink(mine.path("secret"), inner.join("absolute"))?;
    let listener = UnixListener::bind(mine.path("host.sock"))?;
    chown(mine.path("host.sock"), Some(USER), Some(USER))?;
    let shares = [
        format!("{}:/s:ro", inner.display()),
        format!("{}:/rw", inner.display()),
        format!("{}:/etc/one", mine.path("secret").display()),
        format!("{}:/in.sock", mine.path("host.sock").display()),
    ];
    // A guest's root may call its own side writable: the host's is not.
    let script = "mount -o remount,rw /s; cd /s; for what in 'touch x' 'rm file' 'mkdir d' 'chmod 777 file' 'chown 1 file' \
         'ln file x'; do $what 2>&- && echo \"$what works\"; done; cat file /rw/up /rw/absolute 2>&-; ls -A /rw/.. | grep -c secret; \
         getfattr -d /s/file 2>&-; cat /etc/one; stat -c %F /in.sock";
    let words = ["run", "--rm", "--privileged"].into_iter();
    let words = words.chain(shares.iter().flat_map(|share| ["-v", share]));
    let ran = mine.hull(words.chain(["demo", "sh", "-c", script]))?;
    let printed = ran.expect_code(0).stdout();
    assert_eq!(printed, "kept0\nof the hostsocket");
    assert_eq!(fs::read_to_string(inner.join("file"))?, "kept");
    assert_eq!(fs::read_dir(&inner)?.count(), 3);
    drop(listener);
    mine.hull.expect_nothing_left()
}

#[test]
fn a_server_of_the_users_answers_in_their_container() -> Result<()> {
    let hull = Hull::of_user()?;
    hull.import_program(Path::new(env!("CARGO_BIN_EXE_caller")), "caller")?;
    let mine = Mine::over(hull)?;
    let listener = UnixListener::bind(mine.path("host.sock"))?;
    chown(mine.path("host.sock"), Some(USER), Some(USER))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut said = Vec::new();
            if stream.read_to_end(&mut said).is_ok() {
                said.reverse();
                let _ = stream.write_all(&said);
            }
        }
    });
    let socket = format!("{}:/in.sock", mine.path("host.sock").display());
    let run = [
        "run", "--rm", "-v", &socket, "caller", "/caller", "/in.sock", "ask",
    ];
    let answered = mine.hull(run)?.expect_code(0);
    assert_eq!(answered.stdout(), "noitseuq");
    mine.hull.expect_nothing_left()
}

/// Gives everything below a folder to the user.
fn give(path: &Path) -> Result<()> {
    lchown(path, Some(USER), Some(USER))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

#[test]
fn hull_fs_of_a_user_is_in_a_jail_without_capabilities() -> Result<()> {
    let mine = Mine::new()?;
    let folder = format!("{}:/w", mine.folder.path().display());
    let run = [
        "run", "-d", "--name", "box", "-v", &folder, "demo", "sleep", "1000",
    ];
    mine.hull(run)?.expect_code(0);
    let pid = mine.hull.process("hull-fs")?.as_raw_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).context(name.to_owned())
    };
    assert_eq!(field("Seccomp:")?, "2");
    assert_eq!(field("NoNewPrivs:")?, "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set)?, "0000000000000000", "{set}");
    }
    let users: Vec<&str> = field("Uid:")?.split_whitespace().collect();
    assert_eq!(users, vec![USER.to_string(); 4]);
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&pid.to_string())?, of("self")?, "{namespace}");
    }
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, [&*USER.to_string(), &*USER.to_string(), "1"]);
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/"))?.count(), 0);
    mine.hull(["rm", "-f", "box"])?.expect_code(0);
    mine.hull.expect_nothing_left()
}
