//! The user, groups and working directory of the process.

use serde_json::json;

use crate::fixture::Bundle;

#[test]
#[ignore = "needs root"]
fn users_are_those_of_the_image() {
    let id = |user: &str| {
        Bundle::new("id; echo $HOME")
            .option("--user", user)
            .run()
            .ok()
    };
    assert_eq!(
        id("web"),
        "uid=33(web) gid=34(web) groups=34(web),44(video)\n/home/web\n"
    );
    assert_eq!(
        id("33:video"),
        "uid=33(web) gid=44(video) groups=44(video)\n/home/web\n"
    );
    assert_eq!(id("1234"), "uid=1234 gid=0(root) groups=0(root)\n/\n");
    let unknown = Bundle::new("id").option("--user", "stranger").run();
    assert_eq!(
        unknown.err,
        "run-bundle: cannot find the user stranger: no such user in the image's /etc/passwd\n"
    );
    assert_eq!(unknown.code, 125);
}

#[test]
#[ignore = "needs root"]
fn the_documents_numbers_and_groups_are_used_as_they_are() {
    let mut bundle = Bundle::new("id; echo $HOME");
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 7, "additionalGids": [44, 99] });
    assert_eq!(
        bundle.run().ok(),
        "uid=33(web) gid=7 groups=7,44(video),99\n/home/web\n"
    );
}

#[test]
#[ignore = "needs root"]
fn the_working_directory_is_made_and_entered() {
    let mut bundle = Bundle::new("pwd; stat -c %u:%a .");
    bundle.config["process"]["cwd"] = json!("/srv/app/data");
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    assert_eq!(bundle.run().ok(), "/srv/app/data\n0:755\n");
    bundle.config["process"]["cwd"] = json!("/etc/passwd");
    assert_eq!(
        bundle.run().err,
        "run-bundle: cannot enter the working directory /etc/passwd: Not a directory (os error 20)\n"
    );
    bundle.config["process"]["cwd"] = json!("relative");
    assert_eq!(bundle.run().code, 125);
}

#[test]
#[ignore = "needs root"]
fn a_directory_of_the_users_own_can_be_the_working_directory() {
    let mut bundle = Bundle::new("pwd");
    bundle.config["process"]["cwd"] = json!("/home/web");
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 34 });
    // Without CAP_DAC_OVERRIDE, only the user may enter it.
    bundle.config["process"]["capabilities"] = json!({});
    bundle.own_directory("home/web", 33, 0o700);
    assert_eq!(bundle.run().ok(), "/home/web\n");
}
