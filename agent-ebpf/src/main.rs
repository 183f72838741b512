//! Seismo's kernel programs: one file per probe family under `probes`, everything shared beside it.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod account;
mod emit;
mod filter;
mod kernel;
mod lane;
mod maps;
mod operation;
mod probes;
mod sock;
mod task;
mod user;
mod workload;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: the verifier refuses an object in which this call is left.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
