use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

/// What a generated tree is made of.
#[derive(Clone, Debug)]
enum Made {
    Directory,
    File,
    Link(String),
}

/// Few names, so that paths and links meet what is there.
fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["a", "b", "c"]).prop_map(String::from)
}

fn path() -> impl Strategy<Value = String> {
    let part =
        prop_oneof![6 => name(), 2 => Just("..".to_string()), 1 => Just(".".to_string()), 1 => Just(String::new())];
    (any::<bool>(), proptest::collection::vec(part, 1..6)).prop_map(|(is_absolute, parts)| {
        let path = format!("{}{}", if is_absolute { "/" } else { "" }, parts.join("/"));
        if path.is_empty() { ".".into() } else { path }
    })
}

fn made() -> impl Strategy<Value = (Vec<String>, Made)> {
    let made = prop_oneof![3 => Just(Made::Directory), 1 => Just(Made::File), 4 => path().prop_map(Made::Link)];
    (proptest::collection::vec(name(), 1..4), made)
}

/// Makes a tree; what does not fit in is left out.
fn make(root: &Path, tree: &[(Vec<String>, Made)]) {
    for (names, made) in tree {
        let place = names.iter().fold(root.to_path_buf(), |place, name| place.join(name));
        // A parent that is a link would lead out of the root here.
        let parents = place.ancestors().skip(1).take_while(|parent| *parent != root);
        if parents.into_iter().any(Path::is_symlink) {
            continue;
        }
        drop(std::fs::create_dir_all(place.parent().unwrap()));
        match made {
            Made::Directory => drop(std::fs::create_dir(place)),
            Made::File => drop(std::fs::File::create_new(place)),
            Made::Link(target) => drop(symlink(target, place)),
        }
    }
}

/// The file that a path leads to, or the error.
fn found(root: &Root, path: &str, flags: OFlags) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(root.resolve(path, flags)?)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The same root for the kernel, and for our own walk.
fn both(directory: &Path) -> (Root, Root) {
    let kernel = Root::open(directory).unwrap();
    assert!(kernel.has_openat2, "this test needs openat2 (Linux 5.6)");
    (kernel, Root { has_openat2: false, ..Root::open(directory).unwrap() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn our_own_walk_is_the_kernels(
        tree in proptest::collection::vec(made(), 0..14),
        paths in proptest::collection::vec(path(), 1..12),
    ) {
        let outside = tempfile::tempdir().unwrap();
        // What a path that leads out would find.
        make(outside.path(), &tree);
        let directory = outside.path().join("c/root");
        drop(std::fs::create_dir_all(&directory));
        prop_assume!(directory.is_dir() && directory.canonicalize().unwrap().ends_with("c/root"));
        make(&directory, &tree);
        let (kernel, own) = both(&directory);
        for path in &paths {
            for flags in [OFlags::PATH, OFlags::RDONLY, OFlags::PATH | OFlags::DIRECTORY, OFlags::RDONLY | OFlags::DIRECTORY] {
                prop_assert_eq!(found(&own, path, flags), found(&kernel, path, flags), "{} {:?}", path, flags);
            }
            if let Ok(walked) = own.walk(path) {
                let resolved = walked.resolved();
                prop_assert_eq!(found(&kernel, resolved.to_str().unwrap(), OFlags::PATH), found(&kernel, path, OFlags::PATH));
            }
        }
    }
}

#[test]
fn forty_links_are_followed_and_not_one_more() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::File::create(directory.path().join("0")).unwrap();
    for link in 1..=41 {
        symlink(format!("/{}", link - 1), directory.path().join(link.to_string())).unwrap();
    }
    let (kernel, own) = both(directory.path());
    for root in [&kernel, &own] {
        assert!(found(root, "40", OFlags::RDONLY).is_ok());
        assert_eq!(found(root, "41", OFlags::RDONLY), Err(Errno::LOOP));
    }
}

#[test]
fn somebody_who_swaps_a_directory_and_a_link_leads_nobody_out() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::create_dir_all(at("root/d")).unwrap();
    for file in ["secret", "root/d/secret"] {
        std::fs::File::create(at(file)).unwrap();
    }
    symlink("../..", at("root/link")).unwrap();
    let inside = std::os::unix::fs::MetadataExt::ino(&at("root/d/secret").metadata().unwrap());
    let (kernel, own) = both(&at("root"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let (one, other) = (at("root/d"), at("root/link"));
                rustix::fs::renameat_with(CWD, &one, CWD, &other, rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..5_000 {
            for root in [&kernel, &own] {
                for path in ["d/secret", "d/../d/secret"] {
                    match found(root, path, OFlags::RDONLY) {
                        Ok((_, inode)) => assert_eq!(inode, inside),
                        Err(error) => assert!(matches!(error, Errno::NOENT | Errno::LOOP | Errno::NOTDIR), "{error}"),
                    }
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
