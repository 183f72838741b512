//! Facts about this kernel and host, read once into a plain struct. Reading changes nothing.
//!
//! What cannot be found out (no permission, no file) is a fact too: the reason stands in its place, so that
//! `seismo doctor` can tell it without root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Serialize;

use super::btf::Btf;
use super::capabilities::{self, Capability};
use super::offsets::{self, Resolved};
use super::raw;
use crate::model::probe::{FamilySpec, Hook};

const BTF_FILE: &str = "/sys/kernel/btf/vmlinux";

/// Names and numbers by enumeration.
pub type Constants = BTreeMap<&'static str, Vec<(String, u32)>>;

/// What the kernel and the host offer; by default nothing is known.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    pub kernel_release: String,
    pub architecture: &'static str,
    /// `none`, `integrity`, `confidentiality`, or why it is not known.
    pub lockdown: String,
    /// Why there is no usable BTF; `None` when there is.
    pub btf_error: Option<String>,
    /// Tracepoints of all families that the kernel has, with the number of their arguments.
    pub tracepoints: BTreeMap<String, usize>,
    /// Kinds of objects that programs of the families want to iterate over and that the kernel has.
    pub iterators: BTreeSet<String>,
    /// Functions of processes can be probed (`CONFIG_UPROBE_EVENTS`).
    pub user_probes: bool,
    /// Functions that programs are attached to or call, which the kernel has, with the names of their parameters.
    pub functions: BTreeMap<String, Vec<String>>,
    /// Structs whose fields the programs read and which the kernel has.
    pub structs: BTreeSet<String>,
    #[serde(skip)]
    pub cast: Option<Cast>,
    #[serde(skip)]
    pub offsets: Option<Resolved>,
    pub missing_fields: Vec<String>,
    /// Enumerations whose numbers differ by kernel; empty where this one does not have it.
    #[serde(skip)]
    pub constants: Constants,
    /// Capabilities in effect, of those that matter here.
    pub capabilities: Vec<String>,
    pub missing_capabilities: Vec<String>,
    pub bpf_jit: String,
    pub unprivileged_bpf_disabled: String,
    pub cpus: usize,
}

impl Facts {
    /// Reads everything; `families` say which tracepoints matter.
    pub fn read(families: &[&FamilySpec]) -> Self {
        let mut facts = Self {
            kernel_release: read("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH,
            lockdown: lockdown(),
            user_probes: raw::user_probe_type().is_ok(),
            bpf_jit: read("/proc/sys/net/core/bpf_jit_enable"),
            unprivileged_bpf_disabled: read("/proc/sys/kernel/unprivileged_bpf_disabled"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            ..Self::default()
        };
        if let Err(error) = facts.read_btf(families) {
            facts.btf_error = Some(format!("{error:#}"));
        }
        let held = capabilities::effective();
        for needed in capabilities::NEEDED {
            let list = if held.contains(needed) { &mut facts.capabilities } else { &mut facts.missing_capabilities };
            list.push(needed.name().to_owned());
        }
        facts
    }

    /// Has every capability that loading needs?
    pub fn can_load(&self) -> bool {
        !capabilities::LOADING
            .iter()
            .any(|needed: &Capability| self.missing_capabilities.iter().any(|m| m == needed.name()))
    }

    fn read_btf(&mut self, families: &[&FamilySpec]) -> anyhow::Result<()> {
        use anyhow::Context as _;
        let bytes = fs::read(BTF_FILE)
            .with_context(|| format!("{BTF_FILE}: needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (5.5 or later)"))?;
        let btf = Btf::parse(bytes).context(BTF_FILE)?;
        for program in families.iter().flat_map(|family| family.programs) {
            match program.hook {
                Hook::TpBtf(tracepoint) | Hook::TpBtfOf { name: tracepoint, .. } => {
                    if let Some(arguments) = btf.arguments(tracepoint)? {
                        self.tracepoints.insert(tracepoint.to_owned(), arguments);
                    }
                }
                Hook::User { .. } => {}
                Hook::FExit(function) => self.read_function(&btf, function)?,
                Hook::Iter { over, helpers } => {
                    if btf.has_struct(&format!("bpf_iter__{over}")) {
                        self.iterators.insert(over.to_owned());
                    }
                    for helper in helpers {
                        self.read_function(&btf, helper)?;
                    }
                }
            }
            for name in program.structs {
                if btf.has_struct(name) {
                    self.structs.insert((*name).to_owned());
                }
            }
        }
        let of_tiers = families.iter().flat_map(|family| family.tiers).flat_map(|tier| tier.helpers);
        for helper in HELPERS.iter().chain(of_tiers) {
            self.read_function(&btf, helper)?;
        }
        for name in ENUMERATIONS {
            self.constants.insert(name, btf.enumerators(name)?);
        }
        let ids = btf.ids(CAST, [WORDS, REGISTERS]);
        self.cast = ids.map(|[function, words, registers]| Cast { function, words, registers });
        let resolved = offsets::resolve(&btf).context(BTF_FILE)?;
        self.missing_fields = resolved.missing.clone();
        self.offsets = Some(resolved);
        Ok(())
    }

    fn read_function(&mut self, btf: &Btf, name: &str) -> anyhow::Result<()> {
        if let Some(parameters) = btf.parameters(name)? {
            self.functions.insert(name.to_owned(), parameters);
        }
        Ok(())
    }
}

/// Type ids of what makes an address readable: the kernel's function that casts it, a struct of two words, and that of saved
/// registers.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pub function: u32,
    pub words: u32,
    pub registers: u32,
}

const CAST: &str = "bpf_rdonly_cast";
/// `tv_sec` and `tv_nsec`, 64 bits each.
const WORDS: &str = "timespec64";
const REGISTERS: &str = "pt_regs";

/// Helpers that not every kernel has and that programs do without, by the kernel's function behind each.
const HELPERS: &[&str] = &[TASK_BTF, UNIX_CAST, TASK_REGISTERS, COOKIE];
pub(super) const TASK_BTF: &str = "bpf_get_current_task_btf";
pub(super) const TASK_REGISTERS: &str = "bpf_task_pt_regs";
pub(super) const UNIX_CAST: &str = "bpf_skc_to_unix_sock";
/// `bpf_get_socket_cookie` for tracing programs.
pub(super) const COOKIE: &str = "bpf_get_socket_ptr_cookie";

/// Bits of a block request's flags; reasons to drop a packet.
const ENUMERATIONS: [&str; 2] = [REQUEST_FLAGS, "skb_drop_reason"];
pub(super) const REQUEST_FLAGS: &str = "rqf_flags";

/// First line of a small file, or why it cannot be read.
fn read(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => format!("unknown ({path}: {error})"),
    }
}

/// The kernel marks the active mode with brackets; without securityfs it cannot be told.
fn lockdown() -> String {
    let text = read("/sys/kernel/security/lockdown");
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        Some((mode, _)) => mode.to_owned(),
        None => text,
    }
}
