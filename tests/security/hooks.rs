//! Hooks are programs of the host: what an image says about variables, libraries and programs does not reach them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;

use crate::attack::Outside;
use crate::harness::{Bundle, known_difference, reaper, skip};

/// What an image has its engine put into `process.env`.
const HOSTILE: [&str; 8] = [
    "LD_PRELOAD=/evil.so",
    "LD_LIBRARY_PATH=/evil",
    "LD_AUDIT=/evil.so",
    "GCONV_PATH=/evil",
    "BASH_ENV=/evil.sh",
    "ENV=/evil.sh",
    "PATH=/evil:/bin",
    "IMAGE_SAYS=1",
];

/// Kinds that run with the host's root; `startContainer` is the container's own program.
const KINDS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// A library that leaves a mark in each program that loads it; `None` where there is no C compiler.
fn library(bundle: &Bundle, mark: &str) -> Option<std::path::PathBuf> {
    let text = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void evil(void) \
         {{ open(\"{mark}\", O_CREAT | O_WRONLY, 0666); }}\n"
    );
    let (source, made) = (bundle.host_file("evil.c", &text), bundle.host("evil.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&made, &source]);
    let ended = reaper::spawn(&mut compiler).ok().and_then(|pid| reaper::wait(pid, std::time::Duration::from_secs(60)));
    (ended == Some(reaper::End::Code(0))).then_some(made)
}

#[test]
fn cve_2025_23266_a_hook_has_neither_variables_nor_libraries_nor_programs_of_the_image() {
    let first = Bundle::new();
    let (mark, record) = (first.host("evil-was-loaded"), first.host_dir("record"));
    let library = library(&first, mark.to_str().expect("a plain path"));
    if library.is_none() {
        skip("without a C compiler the library is a file of text");
    }
    // A program of the host that is linked with libraries; and its twin at the same place of the image.
    let tool = first.host_file("tool", "");
    fs::write(
        &tool,
        "#!/bin/sh\necho \"$0\" >\"$1.program\"\ntr '\\0' '\\n' </proc/self/environ >\"$1.env\"\n\
        cat /proc/self/maps >\"$1.maps\"\n",
    )
    .expect("write the hook");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("make it a program");
    let tool = tool.to_str().expect("a plain path");
    let outside = Outside::of(&first);
    for environment in [Some(json!(["PATH=/usr/bin:/bin", "MINE=1"])), Some(json!([])), None] {
        let image = "#!/bin/sh\necho EVIL >/evil-ran\n";
        let mut bundle =
            Bundle::new().file(tool, image, 0o755).file("/evil.sh", image, 0o755).file("/evil/tr", image, 0o755);
        let evil = bundle.rootfs().join("evil.so");
        match &library {
            Some(library) => drop(fs::copy(library, evil).expect("put the library into the image")),
            None => fs::write(evil, "no library").expect("write a file"),
        }
        for variable in HOSTILE {
            bundle = bundle.env(variable);
        }
        for kind in KINDS {
            let into = record.join(kind);
            let mut hook = json!({"path": tool, "args": [tool, into]});
            if let Some(list) = &environment {
                hook["env"] = list.clone();
            }
            bundle = bundle.push(&format!("/hooks/{kind}"), hook);
        }
        let bundle = bundle.args(["true"]);
        bundle.run().ok();
        assert!(!mark.exists(), "a library of the image was loaded into a program of the host");
        for kind in KINDS {
            let read = |what: &str| fs::read_to_string(record.join(format!("{kind}.{what}"))).expect(what);
            assert_eq!(read("program").trim(), tool, "{kind}");
            assert!(!read("maps").contains("evil"), "{kind}: {}", read("maps"));
            let mut seen: Vec<String> = read("env").lines().map(str::to_owned).collect();
            seen.sort();
            for word in HOSTILE {
                assert!(!seen.contains(&word.to_owned()), "{kind} has {word}");
            }
            match &environment {
                // Exactly what the hook says, and nothing of the caller's.
                Some(list) => {
                    let mut wanted: Vec<String> = list
                        .as_array()
                        .expect("a list")
                        .iter()
                        .flat_map(|word| word.as_str())
                        .map(str::to_owned)
                        .collect();
                    wanted.sort();
                    if !known_difference("crun", "has variables of its own") {
                        assert_eq!(seen, wanted, "{kind}");
                    }
                }
                // That of the caller, who is trusted.
                None => assert!(
                    seen.iter().any(|word| word.starts_with("PATH=/usr/local/sbin"))
                        || known_difference("runc", "has none"),
                    "{kind}: {seen:?}"
                ),
            }
            for what in ["program", "env", "maps"] {
                fs::remove_file(record.join(format!("{kind}.{what}"))).expect("forget what was seen");
            }
        }
        assert!(!bundle.rootfs().join("evil-ran").exists(), "a program of the image has run as a hook");
        outside.is_untouched();
    }
}

#[test]
fn cve_2025_23266_a_hook_is_found_on_the_host_whatever_the_image_mounts_there() {
    let first = Bundle::new();
    let seen = first.host("seen");
    let script = format!("#!/bin/sh\necho $1 >>{}\n", seen.display());
    let tool = first.host_file("tools/tool", &script);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("make it a program");
    let evil = first.host_dir("evil");
    fs::write(evil.join("tool"), "#!/bin/sh\nexit 77\n").expect("write a program");
    fs::set_permissions(evil.join("tool"), fs::Permissions::from_mode(0o755)).expect("make it a program");
    let tools = tool.parent().expect("a parent").to_str().expect("a plain path").to_owned();
    // A volume over the place of the hook, in the container; and a link of the image there.
    let volume = Bundle::new().bind(&evil, &tools, &["rbind"]);
    let link = Bundle::new().file("/elsewhere/tool", "#!/bin/sh\nexit 77\n", 0o755).link(&tools, "/elsewhere");
    for (turn, bundle) in [volume, link].into_iter().enumerate() {
        let bundle = KINDS.into_iter().fold(bundle, |bundle, kind| {
            bundle.push(&format!("/hooks/{kind}"), json!({"path": tool, "args": ["tool", kind], "env": ["PATH=/bin"]}))
        });
        bundle.args(["true"]).run().ok();
        let text = fs::read_to_string(&seen).expect("what the hooks have said");
        assert_eq!(text.lines().count(), KINDS.len() * (turn + 1), "{text}");
    }
    assert_eq!(fs::metadata(&tool).expect("the hook").uid(), 0);
}

#[test]
fn cve_2018_15664_cve_2019_14271_no_library_and_no_table_of_an_image_is_read() {
    // A program that is linked with libraries, or that looks up names, reads these in the container.
    let files = [
        "etc/ld.so.preload",
        "etc/ld.so.cache",
        "etc/nsswitch.conf",
        "etc/group",
        "etc/host.conf",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/localtime",
        "etc/locale.alias",
        "etc/subuid",
        "usr/lib/locale/locale-archive",
        "usr/lib/x86_64-linux-gnu/gconv/gconv-modules",
        "usr/share/zoneinfo/UTC",
        "lib64/ld-linux-x86-64.so.2",
        "lib/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libc.so.6",
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libgcc_s.so.1",
    ];
    for userns in [false, true] {
        let bundle = Bundle::new().args(["sleep", "100"]).env("LANG=de_DE.UTF-8").env("TZ=Europe/Berlin");
        let bundle = bundle.env("LD_LIBRARY_PATH=/lib").set("/process/user", json!({"uid": 1000, "gid": 1000}));
        for file in files {
            let path = bundle.rootfs().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
            let _ = fs::remove_file(&path);
            // Whoever opens one waits for ever.
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("make a fifo");
        }
        let bundle = if userns { bundle.userns() } else { bundle };
        let command = bundle.create_cmd(&[]).env("LANG", "de_DE.UTF-8").env("TZ", "Europe/Berlin");
        command.run().ok();
        bundle.start().ok();
        let exec = bundle.exec_cmd(&["--user", "1000:1000"], &["true"]);
        exec.env("LANG", "de_DE.UTF-8").env("TZ", "Europe/Berlin").run().ok();
        let list = json!([{"destination": "/added", "type": "tmpfs", "source": "tmpfs"}]).to_string();
        if !known_difference("runc", "has no such command") {
            bundle.cmd(["mounts", "add", bundle.name(), "-"]).stdin(&list).run().ok();
        }
        bundle.delete_force().ok();
    }
}
