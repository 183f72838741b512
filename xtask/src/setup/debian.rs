//! Packages of a Debian release, through apt with state of its own: the machine's lists and sources stay as they are.
//!
//! The mirror is the one that the machine itself uses, so nothing here names a host. Needs no root: packages are
//! downloaded and unpacked into a folder, never installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::{shell, workspace};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// For one call of apt.
const LIMIT: Duration = Duration::from_secs(300);

/// One suite of the archive, with its package lists read.
pub struct Suite {
    name: &'static str,
    folder: PathBuf,
}

impl Suite {
    /// Reads the lists of `name` into `folder`, from the first of the machine's mirrors that has it.
    pub fn open(folder: &Path, name: &'static str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot write {}", folder.display()))?;
        }
        let suite = Self { name, folder: folder.to_owned() };
        let mut last = anyhow!("apt-get knows no package mirror");
        for mirror in mirrors(&listed()?) {
            match suite.read_lists(&mirror) {
                Ok(()) => return Ok(suite),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn read_lists(&self, mirror: &str) -> Result<()> {
        let name = self.name;
        fs::write(self.folder.join("sources.list"), format!("deb [signed-by={KEYRING}] {mirror} {name} main\n"))?;
        // Without the option a suite that the mirror does not have is a warning.
        let mut update = self.apt("apt-get");
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        shell::watched(&format!("reading Debian's package list of {name}"), &mut update, LIMIT)
    }

    /// What `apt-cache` says.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        shell::output(self.apt("apt-cache").args(arguments))
    }

    /// Downloads a package (`name` or `name=version`) and unpacks it; the folder that holds its files.
    pub fn unpack(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.folder.join(format!("unpacked-{package}"));
        let packages = self.folder.join("packages");
        fs::create_dir_all(&packages)?;
        let mut download = self.apt("apt-get");
        download.args(["download", package]).current_dir(&packages);
        shell::watched(&format!("downloading {package}"), &mut download, LIMIT)?;
        let archive = fs::read_dir(&packages)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded nothing")?;
        shell::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
        fs::remove_dir_all(&packages)?;
        Ok(unpacked)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        for (option, value) in [
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::Cache", self.folder.join("cache")),
            ("Dir::Etc::sourcelist", self.folder.join("sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            // Descriptions in other languages.
            ("Acquire::Languages", PathBuf::from("none")),
            // The unprivileged download user could not write here.
            ("APT::Sandbox::User", PathBuf::from("root")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    }
}

/// The mirrors of the machine's own sources, one a line.
fn listed() -> Result<String> {
    let apt = workspace::program("apt-get").context("no apt-get on this machine")?;
    let targets = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let listed = shell::output(Command::new(&apt).args(targets).arg("Origin: Debian"))?;
    if !listed.trim().is_empty() {
        return Ok(listed);
    }
    // Before the first `apt-get update` no target has an origin yet.
    shell::output(Command::new(&apt).args(targets))
}

/// The distinct mirrors, without the security archive, which has no whole suites.
fn mirrors(listed: &str) -> BTreeSet<String> {
    listed
        .lines()
        .map(|line| line.trim().trim_end_matches('/').to_owned())
        .filter(|mirror| !mirror.is_empty() && !mirror.ends_with("-security"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_tried_once_each_and_never_the_security_archive() {
        let listed = "http://mirror.test/debian/\nhttp://mirror.test/debian-security/\n\nhttp://mirror.test/debian/\n";
        assert_eq!(mirrors(listed).into_iter().collect::<Vec<_>>(), ["http://mirror.test/debian"]);
    }
}
