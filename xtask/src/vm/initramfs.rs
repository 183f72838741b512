//! The root file system of a virtual machine: programs with the libraries they need, as one cpio archive.
//!
//! Programs are those of this machine's build, not static ones: their loader and libraries come along, at the places
//! where the loader looks for them, so nothing is compiled twice. Debug information stays behind (60 MB of an agent's
//! 75). The format is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

enum Entry {
    Directory,
    File {
        bytes: Vec<u8>,
        executable: bool,
    },
    Link {
        to: &'static str,
    },
    /// Character device: what the kernel opens for init before `/dev` is mounted.
    Device {
        major: u32,
        minor: u32,
    },
}

/// What is in the archive so far, by absolute path; a folder sorts before what is in it.
#[derive(Default)]
pub struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
    /// Programs and libraries whose libraries are in already.
    resolved: BTreeSet<PathBuf>,
}

impl Initramfs {
    pub fn new() -> Self {
        let mut archive = Self::default();
        archive.add(Path::new("/dev/console"), Entry::Device { major: 5, minor: 1 });
        // As on Debian: programs are known by both places.
        archive.add(Path::new("/bin"), Entry::Link { to: "usr/bin" });
        archive
    }

    pub fn file(&mut self, at: &str, bytes: Vec<u8>) {
        self.add(Path::new(at), Entry::File { bytes, executable: false });
    }

    /// Takes out what is in a folder.
    pub fn clear(&mut self, folder: &str) {
        self.entries.retain(|path, _| !path.starts_with(folder));
    }

    /// A copy of a folder of this machine.
    pub fn tree(&mut self, from: &Path, at: &Path) -> Result<()> {
        let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let (path, at) =
                (entry.as_ref().map_or_else(|_| from.to_owned(), fs::DirEntry::path), at.join(entry?.file_name()));
            if path.is_dir() {
                self.tree(&path, &at)?;
            } else {
                let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let executable = path.metadata()?.permissions().mode() & 0o111 != 0;
                self.add(&at, Entry::File { bytes, executable });
            }
        }
        Ok(())
    }

    /// A program of this machine with its libraries.
    pub fn program(&mut self, from: &Path, at: &Path) -> Result<()> {
        self.add(at, Entry::File { bytes: stripped(from)?, executable: true });
        let mut list = Command::new("ldd");
        // It fails for a static program, which needs nothing.
        let said = list.arg(from).output().context("cannot start ldd")?;
        for library in libraries(&String::from_utf8_lossy(&said.stdout))
            .with_context(|| format!("{} lacks a library", from.display()))?
        {
            if self.resolved.insert(library.clone()) {
                let bytes = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
                self.add(&library, Entry::File { bytes, executable: true });
            }
        }
        Ok(())
    }

    fn add(&mut self, at: &Path, entry: Entry) {
        for folder in at.ancestors().skip(1).filter(|folder| folder.parent().is_some()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(at.to_owned(), entry);
    }

    pub fn write(&self, to: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(to).with_context(|| format!("cannot write {}", to.display()))?);
        self.write_to(&mut out).and_then(|()| out.flush()).with_context(|| format!("cannot write {}", to.display()))
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            match entry {
                Entry::Directory => record(out, &name, number, 0o040_755, (0, 0), &[])?,
                Entry::File { bytes, executable } => {
                    let mode = if *executable { 0o100_755 } else { 0o100_644 };
                    record(out, &name, number, mode, (0, 0), bytes)?;
                }
                Entry::Link { to } => record(out, &name, number, 0o120_777, (0, 0), to.as_bytes())?,
                Entry::Device { major, minor } => record(out, &name, number, 0o020_600, (*major, *minor), &[])?,
            }
        }
        record(out, "TRAILER!!!", 0, 0, (0, 0), &[])
    }
}

/// One entry: magic, thirteen fields of eight hexadecimal digits, the name, the content; both padded to four bytes.
fn record(out: &mut dyn Write, name: &str, inode: u32, mode: u32, device: (u32, u32), bytes: &[u8]) -> io::Result<()> {
    let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, name.to_owned());
    let size = u32::try_from(bytes.len()).map_err(too_large)?;
    let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
    out.write_all(b"070701")?;
    // Inode, mode, owner, group, links, time, size, device (two), own device (two), length of the name, checksum.
    for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0] {
        write!(out, "{field:08x}")?;
    }
    let padding = |length: usize| &[0u8; 3][..length.wrapping_neg() % 4];
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    out.write_all(padding(110 + name.len() + 1))?;
    out.write_all(bytes)?;
    out.write_all(padding(bytes.len()))
}

/// The program without its debug information; as it is where there is no `strip`.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let Some(strip) = workspace::program("strip") else { return read(program) };
    let copy = workspace::target().join("vm").join(format!(".strip-{}", std::process::id()));
    shell::output(Command::new(strip).arg("--strip-debug").arg("-o").arg(&copy).arg(program))?;
    let bytes = read(&copy);
    fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    bytes
}

/// Files that `ldd` names: `libc.so.6 => /lib/libc.so.6 (0x…)`, or the loader alone by its path.
fn libraries(said: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for line in said.lines().map(str::trim) {
        let found = line.split_once("=> ").map_or(line, |(_, found)| found);
        if found.starts_with("not found") {
            bail!("{line}");
        }
        if let Some(path) = found.split(' ').next().filter(|path| path.starts_with('/')) {
            files.push(PathBuf::from(path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_with_a_path_and_a_missing_one_is_an_error() {
        let said =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(said).unwrap(), expected);
        assert_eq!(libraries("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        assert!(libraries("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn cpio_reads_back_what_was_written() {
        let mut archive = Initramfs::new();
        archive.file("/a/deep/file", b"hello".to_vec());
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 4, 0);

        // Read by the format's rules alone.
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + index * 8..14 + index * 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap() as usize
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let text = std::str::from_utf8(&rest[110..110 + name - 1]).unwrap().to_owned();
            let content = (110 + name).next_multiple_of(4);
            seen.push((text.clone(), mode, rest[content..content + size].to_vec()));
            rest = &rest[content + size.next_multiple_of(4)..];
            if text == "TRAILER!!!" {
                break;
            }
        }
        assert!(rest.is_empty());
        let row = |name: &str, mode, bytes: &[u8]| (name.to_owned(), mode, bytes.to_vec());
        let expected = [
            row("a", 0o040_755, b""),
            row("a/deep", 0o040_755, b""),
            row("a/deep/file", 0o100_644, b"hello"),
            row("bin", 0o120_777, b"usr/bin"),
            row("dev", 0o040_755, b""),
            row("dev/console", 0o020_600, b""),
            row("TRAILER!!!", 0, b""),
        ];
        assert_eq!(seen, expected);
    }
}
