//! What a confined program may do, and a kernel that can less.

use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;

use nix::errno::Errno;

fn say<T>(result: std::io::Result<T>) -> String {
    super::verdict(result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))))
}

/// `tcp bind|connect PORT …` on the loopback address: each verdict.
pub fn tcp(words: &[&str]) {
    for pair in words.chunks_exact(2) {
        let address = format!("127.0.0.1:{}", pair[1]);
        let verdict = match pair[0] {
            "bind" => say(TcpListener::bind(address)),
            _ => say(TcpStream::connect(address)),
        };
        println!("{} {verdict}", pair[0]);
    }
}

fn address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).expect("a short name")
}

/// `abstract serve NAME`: listens on an abstract socket for a minute.
pub fn serve(name: &str) {
    let _listener = UnixListener::bind_addr(&address(name)).expect("listen");
    println!("ready");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// `abstract call NAME`: the verdict of connecting to it.
pub fn call(name: &str) {
    println!("{}", say(UnixStream::connect_addr(&address(name))));
}

/// `refuse NUMBER ERRNO COMMAND…`: runs it where this system call fails so.
pub fn refuse(number: &str, errno: &str, command: &[&str]) {
    let one = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | super::number(errno) as u32;
    let mut filter = [
        one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, super::number(number) as u32),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the four instructions of a live local, of which it is told the number.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done).expect("load a filter");
    let (program, args) = command.split_first().expect("a command");
    panic!("run {program}: {}", std::process::Command::new(program).args(args).exec());
}
