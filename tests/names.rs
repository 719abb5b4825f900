//! Users and hosts by name on a machine with more name services than files: a static program must not load them, for that ends it.
#![allow(clippy::unwrap_used)]

mod support;

use support::milter::{ADDS_A_HEADER, Milter};

fn conf(milter: &Milter, user: &str, port: &str) -> String {
    format!(
        "run_dir = \"{}\"\nuser = \"{user}\"\nlog_to = \"file:{}\"\n[milter.policy]\nport = \"{port}\"\npolicy = \"policy.lua\"\n",
        milter.run_dir().display(),
        milter.path("log").display()
    )
}

#[test]
fn a_host_that_no_service_knows_is_an_error_and_no_crash() {
    let milter = Milter::new(ADDS_A_HEADER);
    let user = if support::is_root() { "nobody" } else { "pmx6" };
    milter.write(
        "pmx.conf",
        &conf(&milter, user, "inet:3366@no-such-host.invalid"),
    );
    milter
        .pmx(&["check"])
        .expect(1)
        .says("no-such-host.invalid");
}

/// Whose name services could be loaded: `nobody` and `root` are known without.
mod needs_root {
    use super::*;

    #[test]
    fn a_user_of_the_password_file_is_found_and_one_that_is_not_there_is_told() {
        let milter = Milter::new(ADDS_A_HEADER);
        milter.write("pmx.conf", &conf(&milter, "daemon", &milter.port_setting()));
        milter.start();
        milter.session();
        milter.stop();
        milter.write(
            "pmx.conf",
            &conf(&milter, "no-such-user", &milter.port_setting()),
        );
        milter
            .pmx(&["check"])
            .expect(6)
            .says("there is no user \"no-such-user\"")
            .says("adduser --system --group no-such-user");
    }
}
