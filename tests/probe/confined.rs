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
    for &[verb, port] in words.as_chunks::<2>().0 {
        let address = format!("127.0.0.1:{port}");
        let verdict = match verb {
            "bind" => say(TcpListener::bind(address)),
            _ => say(TcpStream::connect(address)),
        };
        println!("{verb} {verdict}");
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
    filter(super::number(number) as u32, libc::SECCOMP_RET_ERRNO | super::number(errno) as u32, 0);
    become_command(command);
}

/// `refuse-when NUMBER INDEX VALUE ERRNO COMMAND…`: runs it where this system call fails so if the argument has this value,
/// of which 32 bits are compared.
pub fn refuse_when(words: &[&str]) {
    let [call, index, value, errno, command @ ..] = words else { panic!("probe: refuse-when wants four numbers") };
    let number = |word: &&str| super::number(word) as u32;
    let one = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The arguments of struct seccomp_data begin at 16; its low half comes first here.
    let place = 16 + 8 * number(index);
    load(
        &mut [
            one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, number(call)),
            one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place),
            one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number(value)),
            one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | number(errno)),
            one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ],
        0,
    );
    become_command(command);
}

fn become_command(command: &[&str]) -> ! {
    let (program, args) = command.split_first().expect("a command");
    panic!("run {program}: {}", std::process::Command::new(program).args(args).exec());
}

/// Loads a filter with this verdict for one system call; with the flags of seccomp(2), what comes of it.
fn filter(number: u32, verdict: u32, flags: libc::c_ulong) -> i32 {
    let one = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        one(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, verdict),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    load(&mut filter, flags)
}

fn load(filter: &mut [libc::sock_filter], flags: libc::c_ulong) -> i32 {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel reads the instructions of a live slice, of which it is told the number.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(done).expect("load a filter") as i32
}

/// What a kernel of each level knows (linux/landlock.h): files, ports, scopes.
const LEVELS: [[u64; 3]; 6] =
    [[0x1fff, 0, 0], [0x3fff, 0, 0], [0x7fff, 0, 0], [0x7fff, 3, 0], [0xffff, 3, 0], [0xffff, 3, 3]];

/// `landlock LEVEL COMMAND…`: runs it where the kernel has this level of Landlock.
///
/// A process beside it answers for the one call that tells: the level when that is asked for, E2BIG and EINVAL for sets of
/// rules with what the level does not know, as landlock_create_ruleset(2) has it; all else the kernel does.
pub fn landlock(level: &str, command: &[&str]) {
    let level = super::number(level) as usize;
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors to a live local of that size.
    Errno::result(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    })
    .expect("a pair of sockets");
    let starter = std::process::id() as i32;
    // SAFETY: there is one thread, so the child may do as the parent.
    if unsafe { libc::fork() } == 0 {
        let mut listener = [0; 4];
        nix::unistd::read(borrow(ends[1]), &mut listener).expect("hear of the listener");
        // SAFETY: numbers alone, and the results belong to nobody else.
        let listener = unsafe {
            let pidfd = libc::syscall(libc::SYS_pidfd_open, starter, 0);
            libc::syscall(libc::SYS_pidfd_getfd, pidfd, i32::from_ne_bytes(listener), 0) as i32
        };
        assert!(listener >= 0, "take the listener");
        nix::unistd::write(borrow(ends[1]), b"x").expect("say so");
        answer(listener, level);
    }
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let listener = filter(libc::SYS_landlock_create_ruleset as u32, libc::SECCOMP_RET_USER_NOTIF, flags);
    nix::unistd::write(borrow(ends[0]), &listener.to_ne_bytes()).expect("tell of the listener");
    nix::unistd::read(borrow(ends[0]), &mut [0]).expect("it is taken");
    // Close-on-exec, as the kernel makes it.
    become_command(command);
}

fn borrow<'a>(fd: i32) -> std::os::fd::BorrowedFd<'a> {
    // SAFETY: every caller's descriptor is open for as long as this process.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// Answers until nobody is left who could call.
fn answer(listener: i32, level: usize) -> ! {
    loop {
        let mut wanted = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel reads and writes one live structure.
        unsafe { libc::poll(&raw mut wanted, 1, -1) };
        if wanted.revents & libc::POLLHUP != 0 {
            std::process::exit(0);
        }
        // SAFETY: all of it are plain numbers, for which zero is a value; the kernel wants zeroes.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one structure of this size, which is in the request's number, to a live local.
        if unsafe { libc::ioctl(listener, RECEIVE as _, &raw mut call) } != 0 {
            continue; // the caller is gone
        }
        let (val, error, flags) = match call.data.args {
            [0, 0, 1, ..] => (level as i64, 0, 0),
            [place, size, 0, ..] => match knows(call.pid as i32, place, size, level) {
                Ok(()) => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
                Err(errno) => (0, -(errno as i32), 0),
            },
            _ => (0, -libc::EINVAL, 0),
        };
        let mut response = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: the kernel reads one structure of this size from a live local.
        unsafe { libc::ioctl(listener, SEND as _, &raw mut response) };
    }
}

/// Whether a kernel of this level takes the set of rules that lies there in a process.
fn knows(pid: i32, place: u64, size: u64, level: usize) -> Result<(), Errno> {
    let mut bytes = vec![0; size as usize];
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).map_err(|_| Errno::EFAULT)?;
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, place).map_err(|_| Errno::EFAULT)?;
    let fields = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
    // Fields that came with a later level are too much unless they are zero.
    let fields_known = if level < 4 {
        1
    } else if level < 6 {
        2
    } else {
        3
    };
    for (at, asked) in fields.enumerate() {
        match LEVELS[level - 1].get(at) {
            _ if at >= fields_known && asked != 0 => return Err(Errno::E2BIG),
            Some(known) if asked & !known != 0 => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(())
}
