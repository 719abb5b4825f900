//! Users, groups and hosts by name, in a static program: from /etc/passwd, /etc/group, /etc/hosts and DNS alone.
//!
//! A static program that follows /etc/nsswitch.conf to `systemd`, `sss` or `ldap` loads their shared objects, and with them a second C
//! library whose thread-local storage is not set up: it ends with SIGSEGV (seen with libnss_systemd, which Debian installs with systemd).

/// From here on look-ups load no shared object. Does nothing in a program that is linked dynamically, where all services work.
pub fn from_files_and_dns_only() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{CStr, c_char, c_int};
        use std::sync::Once;

        unsafe extern "C" {
            // nss.h of the GNU C library; these services are part of the library itself since 2.34.
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        const SERVICES: [(&CStr, &CStr); 4] = [
            (c"passwd", c"files"),
            (c"group", c"files"),
            (c"initgroups", c"files"),
            (c"hosts", c"files dns"),
        ];
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            for (database, services) in SERVICES {
                // SAFETY: two strings that end with NUL and are never freed; the library copies what it keeps. It cannot fail for databases
                // that it knows, and there is nothing to be done otherwise.
                unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
            }
        });
    }
}

/// Where a user or group was looked for that is not there.
pub const WHERE: &str = if cfg!(all(target_env = "gnu", target_feature = "crt-static")) {
    " in /etc/passwd, and this program is static and asks nothing else"
} else {
    ""
};
