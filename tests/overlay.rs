//! Overlays: mounts of that type, and image directories that containers share by annotation.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Bundle, HOST_ID, Kind, eventually, kind, known_difference, peers_lack_it};

// Mounts of type overlay.

/// A directory on the host for each of these, holding a file of its own name and one that all have.
fn layers(bundle: &Bundle, names: &[&str]) -> Vec<PathBuf> {
    let make = |name: &&str| {
        bundle.host_file(&format!("{name}/{}", name.replace(['/', '\\'], "_")), name);
        bundle.host_file(&format!("{name}/same"), name);
        bundle.host_dir(name)
    };
    names.iter().map(make).collect()
}

/// One option word for this list of layers, none of which needs an escape.
fn lowerdir(layers: &[PathBuf]) -> String {
    let names: Vec<_> = layers.iter().map(|layer| layer.to_str().expect("a plain path")).collect();
    format!("lowerdir={}", names.join(":"))
}

/// `upperdir` and `workdir` on the host.
fn writable(bundle: &Bundle, name: &str) -> [String; 2] {
    let (upper, work) = (bundle.host_dir(&format!("{name}-upper")), bundle.host_dir(&format!("{name}-work")));
    [format!("upperdir={}", upper.display()), format!("workdir={}", work.display())]
}

#[test]
fn the_first_layer_is_the_topmost_and_writes_go_to_the_upper_one() {
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one", "two"]);
    let [upper, work] = writable(&bundle, "w");
    let container = bundle.mount("/o", "overlay", "overlay", &[&lowerdir(&layers), &upper, &work]);
    let script = "cat /o/one /o/two /o/same && echo new >/o/same && rm /o/two && ls /o && stat -f -c %t /o";
    let container = container.sh(script);
    container.run().prints("onetwooneone\nsame\n794c7630");
    assert_eq!(fs::read_to_string(layers[0].join("same")).expect("the layer's file"), "one");
    assert!(layers[1].join("two").exists());
}

#[test]
fn layers_without_an_upper_one_cannot_be_written() {
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one", "two"]);
    let container = bundle.mount("/o", "overlay", "overlay", &[&lowerdir(&layers)]);
    container.sh("cat /o/two; touch /o/x").run().shows("two").fails_with("read-only file system");
}

#[test]
fn attributes_of_the_mount_go_with_it() {
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one"]);
    let [upper, work] = writable(&bundle, "w");
    let options = [&lowerdir(&layers), &upper, &work, "ro", "nosuid", "nodev", "noexec", "noatime"];
    let container = bundle.mount("/o", "overlay", "overlay", &options);
    let seen = container.sh("awk '$5==\"/o\"{print $6}' /proc/self/mountinfo").run();
    seen.prints("ro,nosuid,nodev,noexec,noatime");
}

#[test]
fn a_path_may_hold_the_characters_that_options_are_made_of() {
    let bundle = Bundle::new();
    layers(&bundle, &["a:b,c\\d", "plain"]);
    let base = bundle.host_dir(".");
    let base = base.to_str().expect("a plain path").trim_end_matches("/.").to_owned();
    let [upper, work] = writable(&bundle, "u:v,w\\x");
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    // In the old interface a comma has to be escaped as well; that is no different in the new one.
    let comma = |text: String| text.replace(',', "\\,");
    let lower = comma(format!("lowerdir={base}/{}:{base}/plain", escape("a:b,c\\d")));
    let (upper, work) = (comma(upper.replace('\\', "\\\\")), comma(work.replace('\\', "\\\\")));
    let container = bundle.mount("/o", "overlay", "overlay", &[&lower, &upper, &work]);
    let container = container.sh("cat /o/a:b,c_d /o/plain && echo >/o/written");
    container.run().prints("a:b,c\\dplain");
    assert!(container.host_dir("u:v,w\\x-upper").join("written").exists());
}

#[test]
fn options_of_the_kernel_are_passed_on() {
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one", "two"]);
    let [upper, work] = writable(&bundle, "w");
    let words = ["index=on", "metacopy=on", "redirect_dir=on", "uuid=null", "volatile"];
    let lower = lowerdir(&layers);
    let options: Vec<&str> = [lower.as_str(), &upper, &work].into_iter().chain(words).collect();
    let container = bundle.mount("/o", "overlay", "overlay", &options);
    let seen = container.sh("awk '$5==\"/o\"{print $NF}' /proc/self/mountinfo").run();
    for word in words {
        if !seen.stdout().trim().split(',').any(|set| set.ends_with(word)) {
            seen.fail(&format!("{word} should be in effect"));
        }
    }
}

#[test]
fn an_option_that_the_kernel_does_not_know_is_named() {
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one", "two"]);
    let container = bundle.mount("/o", "overlay", "overlay", &[&lowerdir(&layers), "nonsense=1"]).args(["true"]);
    let seen = container.run();
    seen.fails();
    if kind() == Kind::Corten {
        seen.fails_with("nonsense=1");
    }
}

#[test]
fn layers_may_be_named_one_by_one_and_from_the_bundle_on() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new();
    for name in ["la:yer", "second", "up", "work"] {
        fs::create_dir(container.path().join(name)).expect("make a layer");
        fs::write(container.path().join(name).join(name), name).expect("fill a layer");
    }
    fs::remove_file(container.path().join("work/work")).expect("empty the work directory");
    let options = ["lowerdir+=la:yer", "lowerdir+=second", "upperdir=up", "workdir=work"];
    let container = container.mount("/o", "overlay", "overlay", &options);
    container.sh("cat /o/la:yer /o/second /o/up").run().prints("la:yersecondup");
}

#[test]
fn files_of_data_only_layers_are_reached_by_redirects_alone() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one", "two", "data"]);
    let [one, two, data] = [0, 1, 2].map(|index| layers[index].to_str().expect("a plain path"));
    for options in [
        vec![format!("lowerdir={one}:{two}::{data}")],
        vec![format!("lowerdir+={one}"), format!("lowerdir+={two}"), format!("datadir+={data}")],
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let container = Bundle::new().mount("/o", "overlay", "overlay", &options);
        container.sh("cat /o/two; ls /o").run().prints("twoone\nsame\ntwo");
    }
}

#[test]
fn many_layers_make_one_mount() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new();
    let base = bundle.host_dir("a-rather-long-name-for-a-directory-of-layers");
    let names: Vec<PathBuf> = (0..600).map(|number| base.join(format!("layer-{number}"))).collect();
    for (number, layer) in names.iter().enumerate() {
        fs::create_dir(layer).expect("make a layer");
        fs::write(layer.join(format!("f{number}")), "").expect("fill a layer");
        fs::write(layer.join("same"), number.to_string()).expect("fill a layer");
    }
    // One that hides what only the nested overlay has.
    nix::sys::stat::mknod(&names[3].join("f599"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0)
        .expect("make a whiteout");
    let [upper, work] = writable(&bundle, "w");
    let list = lowerdir(&names);
    assert!(list.len() > 4096 * 8);
    for options in [vec![list.as_str()], vec![list.as_str(), &upper, &work]] {
        let container = Bundle::new().mount("/o", "overlay", "overlay", &options);
        container.sh("ls /o | wc -l; cat /o/same; ls /o/f598 /o/f599").run().shows("600\n0/o/f598").fails();
    }
}

#[test]
fn a_layer_that_is_not_there_is_told_with_its_option_and_number() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new();
    let mut layers = layers(&bundle, &["one", "two"]);
    layers.insert(1, "missing".into());
    let missing = bundle.path().join("missing");
    let container = bundle.mount("/o", "overlay", "overlay", &[&lowerdir(&layers)]).args(["true"]);
    let seen = container.run();
    seen.fails_with(&format!("open layer 2 of lowerdir, {}", missing.display()))
        .fails_with("no such file or directory");
}

#[test]
fn what_is_wrong_with_the_options_of_an_overlay_is_told_with_its_field() {
    if peers_lack_it() {
        return;
    }
    let lower = "lowerdir=/tmp";
    let many = format!("lowerdir={}", vec!["/tmp"; 1000].join(":"));
    for (options, field, words) in [
        (vec!["nosuid", "lowerdir=/a::/b:/c"], "options/1", "below a data-only one"),
        (vec!["lowerdir=/a:"], "options/0", "layer 2 of lowerdir is empty"),
        (vec!["lowerdir=:/a"], "options/0", "layer 1 of lowerdir is empty"),
        (vec!["lowerdir=/a:::/b"], "options/0", "is empty"),
        (vec!["lowerdir+=/a", "datadir+=/b", "lowerdir+=/c"], "options/2", "below a data-only one"),
        (vec!["upperdir=/a", "workdir=/b"], "options", "an overlay needs lowerdir"),
        (vec![lower, "upperdir=/a"], "options", "workdir"),
        (vec![lower, "upperdir="], "options/1", "upperdir must not be empty"),
        (vec![&many], "options", "1000 layers are more than the 999"),
    ] {
        let container = Bundle::new().set("/mounts", json!([])).mount("/o", "overlay", "overlay", &options);
        container.args(["true"]).run().fails_with(words).fails_with(&format!("/mounts/0/{field}"));
    }
}

#[test]
fn an_upper_and_a_work_directory_on_two_file_systems_are_told() {
    if peers_lack_it() {
        return;
    }
    let bundle = Bundle::new();
    let layers = layers(&bundle, &["one"]);
    let [upper, work] = writable(&bundle, "w");
    mount(Some("tmpfs"), &bundle.host_dir("w-work"), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
    let container = bundle.mount("/o", "overlay", "overlay", &[&lowerdir(&layers), &upper, &work]).args(["true"]);
    container.run().fails_with("upperdir and workdir must be on one file system");
}

#[test]
fn an_overlay_works_in_a_user_namespace() {
    for words in [vec![], vec!["userxattr"]] {
        let bundle = Bundle::new().userns();
        let layers = layers(&bundle, &["one/sub", "two"]);
        let layers = [layers[0].parent().expect("a parent").to_owned(), layers[1].clone()];
        let [upper, work] = writable(&bundle, "w");
        for directory in layers.iter().chain([&bundle.host_dir("w-upper"), &bundle.host_dir("w-work")]) {
            crate::harness::chown_all(directory, HOST_ID);
        }
        let lower = lowerdir(&layers);
        let options: Vec<&str> = [lower.as_str(), &upper, &work].into_iter().chain(words.clone()).collect();
        // A directory that replaces one of a layer is marked by an extended attribute.
        let script = "rm -r /o/sub && mkdir /o/sub && ls /o/sub | wc -l && echo x >/o/two && stat -c %u /o/two";
        let container = bundle.mount("/o", "overlay", "overlay", &options).sh(script);
        let seen = container.run();
        let peer = |name| known_difference(name, "userxattr has to be asked for");
        if words.is_empty() && (peer("crun") || peer("runc")) {
            continue;
        }
        seen.prints("0\n0");
        assert_eq!(fs::metadata(container.host("w-upper/two")).expect("the copy").uid(), HOST_ID);
    }
}

// The root.

#[test]
fn the_first_mount_may_be_an_overlay_that_is_the_root() {
    if known_difference("runc", "refuses the destination /") {
        return;
    }
    for words in [vec![], vec!["ro"]] {
        let bundle = Bundle::new();
        let before = listing(&bundle.rootfs());
        let [upper, work] = writable(&bundle, "w");
        bundle.host_file("w-upper/hello", "from above");
        let mut options = vec!["lowerdir=rootfs", upper.as_str(), &work];
        options.extend(&words);
        let mut mounts = bundle.config()["mounts"].as_array().cloned().unwrap_or_default();
        mounts.insert(0, json!({"destination": "/", "type": "overlay", "source": "overlay", "options": options}));
        let container = bundle.set("/mounts", mounts).mount("/new/place", "tmpfs", "tmpfs", &[]);
        let container = container.sh("cat /hello && test -d /new/place && touch /x && stat -f -c %t /");
        let seen = container.run();
        match words.is_empty() {
            true => seen.prints("from above794c7630"),
            false => seen.shows("from above").fails_with("read-only file system"),
        };
        assert_eq!(listing(&container.rootfs()), before, "the directory below was changed");
        assert!(container.host_dir("w-upper").join("new/place").exists());
    }
}

#[test]
fn a_later_overlay_is_not_the_root() {
    if peers_lack_it() {
        return;
    }
    let container = Bundle::new().mount("/", "overlay", "overlay", &["lowerdir=rootfs"]).args(["true"]);
    container.run().fails_with("is the container's root").fails_with("the first mount");
}

// The image directory by annotation.

const ANNOTATION: &str = "/annotations/run.corten.rootfs.overlay";

/// Everything in a tree, with what would tell of a change.
fn listing(root: &Path) -> String {
    fn walk(path: &Path, text: &mut String) {
        let stat = fs::symlink_metadata(path).expect("look at a tree");
        let content =
            if stat.is_file() && stat.size() < 4096 { fs::read(path).unwrap_or_default() } else { Vec::new() };
        // Bundles share their programs by hard links, so the number of links and the time of its change say nothing.
        let times = (stat.mtime(), stat.mtime_nsec(), stat.is_dir().then_some((stat.ctime(), stat.ctime_nsec())));
        let facts = (stat.mode(), stat.uid(), stat.gid(), stat.size(), stat.rdev());
        writeln!(text, "{} {facts:?} {times:?} {content:?}", path.display()).expect("write to a string");
        if stat.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path).expect("read a directory").flatten().collect();
            entries.sort_by_key(|entry| entry.file_name());
            entries.iter().for_each(|entry| walk(&entry.path(), text));
        }
    }
    let mut text = String::new();
    walk(root, &mut text);
    text
}

/// A bundle whose root is this image directory, in this form.
fn sharing(image: &Path, form: &str) -> Bundle {
    let bundle = Bundle::new().set("/root/path", image.to_str().expect("a plain path"));
    // As the caller's own wish: directories of `dir=` may lie anywhere.
    let bundle = bundle.global("--allow-annotation").global("run.corten.rootfs.overlay");
    bundle.set("/annotations", json!({"run.corten.rootfs.overlay": form}))
}

fn host_mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")
}

#[test]
fn two_containers_share_an_image_that_is_never_touched() {
    if peers_lack_it() {
        return;
    }
    for form in ["tmpfs", "tmpfs,size=1m", "dir=state", "readonly"] {
        let source = Bundle::new();
        let image = source.rootfs();
        // Mount points that the image lacks.
        for missing in ["dev", "proc", "sys"] {
            fs::remove_dir(image.join(missing)).expect("take a mount point away");
        }
        fs::set_permissions(&image, fs::Permissions::from_mode(0o711)).expect("set the mode of the image");
        chown(&image, Some(7), Some(8)).expect("give the image away");
        let (before, mounts) = (listing(&image), host_mounts());
        let container = || {
            let bundle =
                sharing(&image, form).mount("/run/secrets/deep", "tmpfs", "tmpfs", &[]).set("/process/cwd", "/w/d");
            bundle
                .sh("stat -c %a:%u:%g / && (rm /bin/id; echo mine >/etc/passwd; cat /etc/passwd); echo ready; sleep 60")
        };
        let (one, two) = (container(), container());
        one.run_detached().ok();
        two.run_detached().ok();
        let says = if form == "readonly" { "root:x" } else { "mine" };
        for container in [&one, &two] {
            container.until_output("ready");
            assert!(container.output().starts_with("711:7:8\n"), "{form}: {}", container.output());
            assert!(container.output().contains(says), "{form}: {}", container.output());
            container
                .exec(&["sh", "-c", "test -d /run/secrets/deep && test -c /dev/null && echo x >/run/secrets/deep/x"])
                .ok();
        }
        assert_eq!(host_mounts(), mounts, "{form}: something is mounted on the host");
        assert_eq!(listing(&image), before, "{form}: the image was changed");
        one.delete_force().ok();
        two.delete_force().ok();
        assert_eq!(listing(&image), before, "{form}: the image was changed");
        assert_eq!(host_mounts(), mounts, "{form}: something stays mounted on the host");
        let state = one.path().join("state");
        assert_eq!(state.exists(), form == "dir=state");
        if state.exists() {
            assert_eq!(fs::read_to_string(state.join("upper/etc/passwd")).expect("what was written"), "mine\n");
            assert_eq!(fs::read_dir(&state).expect("read the directory").count(), 1, "more than the upper layer stays");
        }
    }
}

#[test]
fn writes_vanish_with_the_container_or_stay_in_the_directory() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let script = "cat /etc/note; echo again >>/etc/note";
    let memory = sharing(&image, "tmpfs").sh(script);
    memory.run().prints("");
    memory.run().prints("");
    let kept = sharing(&image, "dir=a,b=c:d").sh(script);
    kept.run().prints("");
    kept.run().prints("again");
    kept.run().prints("again\nagain");
    let state = kept.path().join("a,b=c:d");
    assert_eq!(fs::metadata(&state).expect("the directory").permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&state).expect("read the directory").count(), 1);
}

#[test]
fn the_size_of_the_memory_is_a_limit() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let script = "dd if=/dev/zero of=/big bs=1k count=2000 2>&1; stat -c %s /big";
    sharing(&image, "tmpfs,size=1m").sh(script).run().shows("No space left on device");
    sharing(&image, "tmpfs,size=8m").sh(script).run().shows("2048000");
}

#[test]
fn a_directory_has_one_container_at_a_time() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let one = sharing(&image, "dir=state").sh("echo one >/note; echo ready; sleep 60");
    let directory = format!("dir={}", one.path().join("state").display());
    one.run_detached().ok();
    one.until_output("ready");
    let two = sharing(&image, &directory).sh("cat /note; echo two >/note");
    two.run().fails_with("another container has its upper layer there").fails_with("device or resource busy");
    // It has not disturbed the first one, which still copies files up.
    one.exec(&["sh", "-c", "echo more >>/etc/passwd && rm -r /root && mkdir /root"]).ok();
    // One that ended without being deleted is in nobody's way, and takes nothing along when it is deleted late.
    one.signal(Signal::SIGKILL);
    one.wait();
    two.run().prints("one");
    let three = sharing(&image, &directory).sh("echo ready; sleep 60");
    three.run_detached().ok();
    three.until_output("ready");
    one.delete_force().ok();
    three.exec(&["sh", "-c", "cat /note && echo x >>/etc/group && rm -r /tmp && mkdir /tmp"]).prints("two");
    three.delete_force().ok();
}

#[test]
fn what_is_kept_cannot_lie_in_the_image() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let before = listing(&image);
    let path = |below: &str| format!("dir={}", image.join(below).display());
    let link = owner.host("link");
    symlink(image.join("tmp"), &link).expect("make a link");
    for form in [path("state"), path("tmp/state"), path(""), path("tmp"), format!("dir={}", link.display())] {
        sharing(&image, &form).args(["true"]).run().fails_with("it lies in the image");
        assert_eq!(listing(&image), before, "{form}");
    }
    sharing(&image, "dir=no/such/state").args(["true"]).run().fails_with("no such file or directory");
}

#[test]
fn readonly_is_read_only_but_for_the_mounts() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let seen =
        sharing(&image, "readonly").mount("/vol/ume", "tmpfs", "tmpfs", &[]).sh("echo x >/vol/ume/x; touch /x").run();
    seen.fails_with("read-only file system");
    sharing(&image, "tmpfs").set("/root/readonly", true).sh("touch /x").run().fails_with("read-only file system");
}

#[test]
fn the_image_is_shared_in_user_namespaces_too() {
    if peers_lack_it() {
        return;
    }
    for form in ["tmpfs", "dir=state", "readonly"] {
        let owner = Bundle::new().userns();
        let image = owner.rootfs();
        fs::create_dir(image.join("old")).expect("make a directory");
        fs::write(image.join("old/file"), "").expect("make a file");
        crate::harness::chown_all(&image, HOST_ID);
        let before = listing(&image);
        let bundle = Bundle::new().userns().set("/root/path", image.to_str().expect("a plain path"));
        let container = bundle.set("/annotations", json!({"run.corten.rootfs.overlay": form}));
        let script = match form {
            "readonly" => "stat -c %u / && ls /old | wc -l",
            _ => "stat -c %u / && rm -r /old && mkdir /old && ls /old | wc -l && echo x >>/etc/passwd",
        };
        let wanted = if form == "readonly" { "0\n1" } else { "0\n0" };
        container.sh(script).run().prints(wanted);
        assert_eq!(listing(&image), before, "{form}: the image was changed");
    }
}

#[test]
fn the_images_owners_are_mapped_into_a_user_namespace() {
    if peers_lack_it() {
        return;
    }
    for form in ["idmap,tmpfs", "idmap,dir=state", "idmap,readonly"] {
        // Owned by the host's root, as images are.
        let owner = Bundle::new();
        let image = owner.rootfs();
        fs::create_dir(image.join("old")).expect("make a directory");
        fs::write(image.join("old/file"), "").expect("make a file");
        chown(image.join("old/file"), Some(7), Some(8)).expect("chown");
        // Not all of the image: its programs are links to files that other tests give to other users.
        let seen = || (listing(&image.join("old")), fs::read_dir(&image).expect("the image").count());
        let before = seen();
        let bundle = Bundle::new().userns().set("/root/path", image.to_str().expect("a plain path"));
        let container = bundle.set("/annotations", json!({"run.corten.rootfs.overlay": form}));
        let (script, wanted) = match form {
            "idmap,readonly" => ("stat -c %u:%g / /old/file", "0:0\n7:8"),
            _ => ("stat -c %u:%g / /old/file && rm -r /old && echo x >/mine && stat -c %u /mine", "0:0\n7:8\n0"),
        };
        let container = container.sh(script);
        container.run().prints(wanted);
        assert_eq!(seen(), before, "{form}: the image was changed");
        if form == "idmap,dir=state" {
            let written = fs::metadata(container.path().join("state/upper/mine")).expect("the file is kept");
            assert_eq!(written.uid(), HOST_ID, "it belongs to the container's root");
        }
    }
    let image = Bundle::new();
    let refused = sharing(image.rootfs().as_path(), "idmap,tmpfs").sh("true").run();
    refused.fails_with("belongs to a user namespace");
}

#[test]
fn a_killed_runtime_leaves_nothing_mounted() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let (before, mounts) = (listing(&image), host_mounts());
    for form in ["tmpfs", "dir=state"] {
        let container = sharing(&image, form);
        // A hook that tells of itself and waits, in the middle of create.
        let mark = container.host("mark");
        let script = format!("touch {}; exec sleep 60", mark.display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let container = container.set("/hooks", json!({"createRuntime": hook}));
        let running = container.create_cmd(&[]).spawn();
        eventually("the hook runs", || mark.exists());
        running.signal(Signal::SIGKILL);
        eventually("the runtime is gone", || !running.is_running());
        assert_eq!(host_mounts(), mounts, "{form}");
        container.delete_force().ok();
        assert_eq!(listing(&image), before, "{form}: the image was changed");
        assert!(!container.path().join("state/work-".to_owned() + container.name()).exists(), "{form}");
        fs::remove_file(&mark).expect("remove the mark");
    }
}

#[test]
fn a_create_that_fails_leaves_no_work_directory() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    let container = sharing(&image, "dir=state").bind("/no/such/source", "/x", &["bind"]).args(["true"]);
    container.run().fails_with("no such file or directory");
    let left: Vec<_> = fs::read_dir(container.path().join("state")).expect("the directory").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn features_tells_of_the_annotation() {
    if !peers_lack_it() {
        let features = Bundle::new().cmd(["features"]).run().json();
        let forms = features["annotations"]["run.corten.rootfs.overlay"].as_str().expect("its forms").to_owned();
        assert!(forms.contains("dir=PATH"), "{forms}");
        // It can name any directory of the host.
        let unsafe_ones = features["potentiallyUnsafeConfigAnnotations"].to_string();
        assert!(unsafe_ones.contains("run.corten.rootfs.overlay"), "{unsafe_ones}");
    }
}

#[test]
fn a_malformed_annotation_is_an_error_with_the_forms() {
    if peers_lack_it() {
        return;
    }
    let owner = Bundle::new();
    let image = owner.rootfs();
    for form in ["", "ro", "tmpfs,mode=7", "dir=", "TMPFS"] {
        let seen = sharing(&image, form).args(["true"]).run();
        seen.fails_with("tmpfs, tmpfs,size=SIZE, dir=PATH or readonly").fails_with(ANNOTATION);
    }
    sharing(&image, "tmpfs,size=big").args(["true"]).run().fails_with("is no size").fails_with(ANNOTATION);
    let hosts = sharing(&image, "tmpfs").without_ns("mount").set("/mounts", json!([]));
    let hosts = hosts.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    hosts.args(["true"]).run().fails_with("an overlay needs a mount namespace").fails_with(ANNOTATION);
    let mut mounts: Vec<Value> = vec![json!({"destination": "/", "type": "overlay", "options": ["lowerdir=/tmp"]})];
    mounts.extend(Bundle::new().config()["mounts"].as_array().cloned().unwrap_or_default());
    let twice = sharing(&image, "tmpfs").set("/mounts", mounts).args(["true"]);
    twice.run().fails_with("the first mount is the container's root already").fails_with(ANNOTATION);
}
