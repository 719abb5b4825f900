//! Local time in a policy: the time zone may change under a running milter, whose children can read no file any more.
#![allow(clippy::unwrap_used)]

mod support;

mod needs_overlay {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::support::command::spawn;
    use super::support::milter::{Milter, PROGRAM};
    use super::support::mta::{Message, Mta};
    use super::support::{SOON, wait_until};

    /// Adds the second at which the second of January 2026 begins here.
    const TELLS_LOCAL_TIME: &str = r#"
local policy = {}
function policy.eom(ctx)
  local midnight = os.time { year = 2026, month = 1, day = 2, hour = 0 }
  ctx:add_header("X-Midnight", string.format("%d", midnight))
end
return policy
"#;
    const MIDNIGHT_IN_UTC: i32 = 1_767_312_000;

    /// A time zone without summer time, so many seconds east of Greenwich (RFC 9636, version 1), in a new file that takes the old one's place.
    fn put_zone(path: &Path, east: i32) {
        let mut bytes = b"TZif".to_vec();
        bytes.extend([0; 16]);
        // Counts: no UT and standard indicators, no leap seconds and transitions, one type, four bytes of names.
        for count in [0, 0, 0, 0, 1, 4_u32] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(east.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(b"ABC\0");
        let new = path.with_extension("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, path).unwrap();
    }

    #[track_caller]
    fn midnight_is(milter: &Milter, east: i32) {
        let mut session = milter.session();
        let answer = session.message(&Message::from("a@b.example")).unwrap();
        let midnight = (MIDNIGHT_IN_UTC - east).to_string();
        assert!(answer.adds_header("X-Midnight", &midnight), "{answer:?}");
        session.quit().unwrap();
    }

    #[test]
    fn a_changed_time_zone_is_seen_after_a_restart_and_no_child_falls_to_utc() {
        const TOKYO: i32 = 9 * 3600;
        const LIMA: i32 = -5 * 3600;
        let milter = Milter::with(TELLS_LOCAL_TIME, "max_pooled_procs = 1\n");
        let zone = milter.path("zone");
        put_zone(&zone, TOKYO);
        // An /etc/localtime that only this milter sees.
        let script = r#"set -e
mount -t tmpfs none /mnt
mkdir /mnt/changes /mnt/work
mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/changes,workdir=/mnt/work /etc
ln -sf "$3" /etc/localtime
exec "$1" -c "$2" run policy"#;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh", PROGRAM])
            .args([milter.path("pmx.conf"), zone.clone()])
            .env("PMX_TEST_DIR", milter.path(""))
            .env_remove("TZ")
            .env_remove("NOTIFY_SOCKET");
        let running = spawn(command);
        wait_until(SOON, "it takes mail", || {
            Mta::ready(&milter.address(), SOON).ok()
        });
        midnight_is(&milter, TOKYO);
        put_zone(&zone, LIMA);
        midnight_is(&milter, TOKYO);
        milter.pmx(&["restart"]).expect(0);
        midnight_is(&milter, LIMA);
        milter.stop();
        drop(running);
    }
}
