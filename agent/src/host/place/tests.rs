//! Every form of cgroup path that we know, one line each in `forms.txt`.
#![allow(clippy::unwrap_used)]

use super::Place;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const UID: &str = "2a8f1c9e-3b4d-4e5f-8a9b-0c1d2e3f4a5b";

/// Placeholders to what they stand for.
fn spelled(text: &str) -> String {
    let words = [("U_I_D", &*UID.replace('-', "_")), ("UID", UID), ("OTHER", OTHER), ("ID", ID)];
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

#[test]
fn every_form_of_path_says_what_the_table_says() {
    let mut forms = 0;
    for line in include_str!("forms.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<String> = line.split('|').map(|column| spelled(column.trim())).collect();
        let [path, expected, root] = &columns[..] else { panic!("{line}") };
        let place = Place::of(path);
        let runtime = place.runtime.map(str::to_owned);
        let fields = [&place.container_id, &runtime, &place.pod_uid, &place.unit, &place.slice];
        let said: Vec<&str> = fields.iter().map(|field| field.as_deref().unwrap_or("-")).collect();
        assert_eq!(said.join(" "), *expected, "{path}");
        assert_eq!(place.root(path), if root == "=" { path } else { root }, "{path}");
        forms += 1;
    }
    assert!(forms > 50, "{forms}");
}

#[test]
fn a_process_in_several_hierarchies_is_where_the_best_of_them_says() {
    let cases = [
        ("12:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/", Some(ID), None),
        // Hybrid: version 2 is there but empty, the container is in version 1 alone.
        (
            "5:cpu,cpuacct:/kubepods/podUID/ID\n1:name=systemd:/system.slice/containerd.service\n0::/",
            Some(ID),
            Some("containerd"),
        ),
        ("5:cpu:/\n1:name=systemd:/system.slice/cron.service", None, Some("cron")),
        ("0::/", None, None),
        ("", None, None),
        ("7", None, None),
    ];
    for (cgroups, id, service) in cases {
        let place = Place::of_process(&spelled(cgroups));
        assert_eq!((place.container_id.as_deref(), place.service()), (id, service), "{cgroups}");
    }
}

#[test]
fn a_user_s_service_manager_and_a_scope_are_no_services() {
    let service = |path| Place::of(path).service().map(str::to_owned);
    assert_eq!(
        service("/user.slice/user-1000.slice/user@1000.service/app.slice/my\\x2dapp.service").unwrap(),
        "my-app"
    );
    assert_eq!(service("/user.slice/user-1000.slice/user@1000.service/init.scope"), None);
    assert_eq!(service("/user.slice/user-0.slice/session-2.scope"), None);
    assert_eq!(service("/user.slice/user-1000.slice/user@1000.service"), None);
}

#[test]
fn escapes_that_are_none_stay_as_they_are() {
    let unit = |path| Place::of(path).unit.unwrap();
    assert_eq!(unit("/a\\x2.service"), "a\\x2.service");
    assert_eq!(unit("/a\\xzz\\x2e.service"), "a\\xzz..service");
    assert_eq!(unit("/a\\xff.service"), "a\u{fffd}.service");
}

proptest::proptest! {
    #[test]
    fn no_path_breaks_it_and_a_workload_s_part_is_a_beginning(path in "(/?(lxc|pod|docker|\\.scope|\\.service|[a-f0-9]{32}|[-:.\\\\x2é]){0,4}){0,6}") {
        let place = Place::of(&path);
        assert!(path.starts_with(place.root(&path)));
    }
}
