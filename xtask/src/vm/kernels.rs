//! The kernels of the matrix: where each comes from, and its image in `target/vm/`.
//!
//! A name of the matrix becomes the newest cloud kernel of a Debian suite, fetched once; a path is taken as it is.
//! Cloud kernels have what a virtual machine needs built in; the few modules that tests need ([`MODULES`]) come along
//! unpacked. Deleting the folder fetches again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::debian::Suite;
use crate::{shell, workspace};

/// A row of the matrix.
struct Row {
    /// What `--kernel` calls it: a release starts with these numbers.
    name: &'static str,
    suite: &'static str,
}

/// Oldest first: the oldest supported kernel, the two stable releases, the newest there is.
const MATRIX: &[Row] = &[
    Row { name: "5.10", suite: "bullseye" },
    Row { name: "6.1", suite: "bookworm" },
    Row { name: "6.12", suite: "trixie" },
    Row { name: "7", suite: "trixie-backports" },
];

/// Every package of a cloud kernel's image; from 7.0 on (6.19 in part) the image is in the package `linux-binary`.
const PACKAGES: &str = "^linux-(image|binary)-[0-9][^-]*(-[0-9]+)?-cloud-amd64$";

/// Modules that the tests need: a link between two network namespaces.
const MODULES: &[&str] = &["veth"];

/// A kernel that can be started.
#[derive(Debug)]
pub struct Kernel {
    /// Name of the matrix, or the release of a file.
    pub name: String,
    pub image: PathBuf,
    /// In the order in which they are loaded; none of a kernel that is a file.
    pub modules: Vec<PathBuf>,
    /// `6.12.107+deb13-cloud-amd64`
    pub release: String,
}

/// Names of the matrix, oldest first.
pub fn names() -> impl Iterator<Item = &'static str> {
    MATRIX.iter().map(|row| row.name)
}

/// The kernels that the command line names, each once and in its order. Fails when one cannot be had.
pub fn find(wanted: &[String]) -> Result<Vec<Kernel>> {
    let mut names: Vec<&str> = Vec::new();
    for name in wanted {
        let all: Vec<&str> = if name == "all" { self::names().collect() } else { vec![name] };
        names.extend(all.iter().filter(|name| !names.contains(name)).copied().collect::<Vec<_>>());
    }
    names.into_iter().map(kernel).collect()
}

/// One kernel; fetched where that is necessary.
pub fn kernel(name: &str) -> Result<Kernel> {
    let Some(row) = MATRIX.iter().find(|row| row.name == name) else {
        let image = PathBuf::from(name);
        if !image.is_file() {
            let names = names().collect::<Vec<_>>().join(", ");
            bail!("'{name}' is neither a kernel of the matrix ({names}, all) nor a file");
        }
        let release = release(&image)?;
        return Ok(Kernel { name: release.clone(), image, modules: Vec::new(), release });
    };
    let folder = workspace::target().join("vm").join(format!("kernel-{name}"));
    let image = folder.join("vmlinuz");
    let modules: Vec<PathBuf> = MODULES.iter().map(|name| folder.join(format!("{name}.ko"))).collect();
    if ![&image].into_iter().chain(&modules).all(|file| file.is_file()) {
        fetch(row, &folder).with_context(|| format!("kernel {name} cannot be had from Debian's {}", row.suite))?;
    }
    Ok(Kernel { name: name.to_owned(), release: release(&image)?, image, modules })
}

/// Leaves the image and the modules in `folder`.
fn fetch(row: &Row, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let temporary = folder.join(format!(".fetch-{}", std::process::id()));
    let result = Suite::open(&temporary, row.suite).and_then(|suite| {
        let found = suite.ask(&["search", "--names-only", PACKAGES])?;
        let package = newest(&found, row.name).context("it has no such cloud kernel")?;
        let unpacked = suite.unpack(package)?;
        let image = image(&unpacked).with_context(|| format!("{package} has no kernel in it"))?;
        let release = release(&image)?;
        fs::rename(image, folder.join("vmlinuz")).context("cannot keep the kernel")?;
        // Where the image has a package of its own, so have they.
        let modules = match module(&unpacked, MODULES[0]) {
            Some(_) => unpacked,
            None => suite.unpack(&format!("linux-modules-{release}"))?,
        };
        for name in MODULES {
            let file = module(&modules, name).with_context(|| format!("it has no module {name}"))?;
            keep_module(&file, &folder.join(format!("{name}.ko")))?;
        }
        Ok(())
    });
    fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    result
}

/// `boot/vmlinuz-RELEASE`, or `usr/lib/modules/RELEASE/vmlinuz` in packages of 7.3 and later.
fn image(unpacked: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(unpacked.join("usr/lib/modules")).into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path()).chain([unpacked.join("boot")]);
    let mut files = folders.flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
}

/// A module's file anywhere in a package.
fn module(unpacked: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = vec![unpacked.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if file.strip_prefix(name).is_some_and(|rest| rest == ".ko" || rest == ".ko.xz") {
                return Some(path);
            }
        }
    }
    None
}

/// Not every kernel can unpack a module itself.
fn keep_module(file: &Path, to: &Path) -> Result<()> {
    let compressed = file.extension().is_some_and(|extension| extension == "xz");
    let copy = if compressed { to.with_extension("ko.xz") } else { to.to_owned() };
    fs::copy(file, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
    if compressed {
        shell::run(Command::new("xz").args(["--decompress", "--force"]).arg(&copy))?;
    }
    Ok(())
}

/// The package that holds the image of the newest release which starts with `wanted`, from `apt-cache search`.
fn newest<'a>(found: &'a str, wanted: &str) -> Option<&'a str> {
    let wanted = numbers(wanted);
    found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|package| {
            let (kind, release) = package.strip_prefix("linux-")?.split_once('-')?;
            let numbers = numbers(release);
            // Where there is both, `linux-image` is an empty shell.
            numbers.starts_with(&wanted).then_some((numbers, kind == "binary", package))
        })
        .max()
        .map(|(_, _, package)| package)
}

/// `[6, 12, 107]` of `6.12.107+deb13-cloud-amd64`; the number after a `-` (Debian's own) counts too.
pub fn numbers(release: &str) -> Vec<u32> {
    release.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// What a bzImage says of itself (Documentation/arch/x86/boot.rst: `kernel_version` at 0x20e, from 0x200 on).
fn release(image: &Path) -> Result<String> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    released(&bytes).with_context(|| format!("{} is no bootable x86 kernel (bzImage)", image.display()))
}

fn released(bytes: &[u8]) -> Option<String> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(bytes.get(0x20e..0x210)?.try_into().ok()?);
    let text = bytes.get(usize::from(offset) + 0x200..)?.split(|byte| *byte == 0).next()?;
    Some(std::str::from_utf8(text).ok()?.split(' ').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_chosen_by_its_numbers() {
        let found = "linux-image-6.12.94+deb13-cloud-amd64 - Linux 6.12\n\
                     linux-image-6.12.107+deb13-cloud-amd64 - Linux 6.12\n\
                     linux-image-6.1.0-50-cloud-amd64 - Linux 6.1\n";
        assert_eq!(newest(found, "6.12"), Some("linux-image-6.12.107+deb13-cloud-amd64"));
        assert_eq!(newest(found, "6.1"), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest(found, "7"), None);
    }

    #[test]
    fn the_package_with_the_binary_is_preferred_to_the_shell_around_it() {
        let found = "linux-binary-7.3.4+deb13-cloud-amd64 - kernel image\n\
                     linux-image-7.3.4+deb13-cloud-amd64 - Linux\n\
                     linux-binary-7.2.12+deb13-cloud-amd64 - kernel image\n";
        assert_eq!(newest(found, "7"), Some("linux-binary-7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn a_kernel_tells_its_release_and_another_file_does_not() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        image[0x300..0x30e].copy_from_slice(b"6.1.0-50 (x) #");
        assert_eq!(released(&image).as_deref(), Some("6.1.0-50"));
        assert_eq!(released(&image[..0x208]), None);
        assert_eq!(released(&[0; 0x400]), None);
    }
}
