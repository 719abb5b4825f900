//! Date and time of day, for log lines: UTC by arithmetic, local time by the C library, which knows the time zones.

use std::mem::MaybeUninit;

/// A moment as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Such as 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
    /// Seconds east of Greenwich.
    pub offset_seconds: i32,
}

/// Seconds since 1970 in UTC (the algorithm of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
pub fn utc(seconds: i64) -> Civil {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the leap day is their last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let small = |number: i64| u8::try_from(number).unwrap_or(0);
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: small(month),
        day: small(day),
        hour: small(rest / 3600),
        minute: small(rest / 60 % 60),
        second: small(rest % 60),
        offset_seconds: 0,
    }
}

/// Reads the time zone, once for this process and those that it forks. The caller has one thread.
///
/// Without TZ the C library looks at /etc/localtime again with every mktime(3) and strftime(3); a confined process that finds it changed may not
/// open it, and would go on in UTC. With TZ it compares the text only. A program that is executed later reads the file anew.
pub fn settle_zone() {
    if std::env::var_os("TZ").is_none() {
        // SAFETY: no other thread reads the environment meanwhile, there is none: the master has one thread when its log begins.
        unsafe { std::env::set_var("TZ", ":/etc/localtime") };
    }
    let _ = local(0);
}

/// Seconds since 1970 in local time; UTC if the C library does not know it. Before anything confines the process: [`settle_zone`].
pub fn local(seconds: i64) -> Civil {
    let time: libc::time_t = seconds;
    let mut broken_down = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r keeps none of them and is thread-safe (localtime(3)), and nothing in
    // this program changes the environment while threads run.
    let result = unsafe { libc::localtime_r(&raw const time, broken_down.as_mut_ptr()) };
    if result.is_null() {
        return utc(seconds);
    }
    // SAFETY: zeroed is a valid tm already, and localtime_r has filled it.
    let tm = unsafe { broken_down.assume_init() };
    let small = |number: libc::c_int| u8::try_from(number).unwrap_or(0);
    Civil {
        year: i64::from(tm.tm_year) + 1900,
        month: small(tm.tm_mon + 1),
        day: small(tm.tm_mday),
        hour: small(tm.tm_hour),
        minute: small(tm.tm_min),
        second: small(tm.tm_sec),
        offset_seconds: i32::try_from(tm.tm_gmtoff).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (-1, (1969, 12, 31, 23, 59, 59)),
            (951_782_399, (2000, 2, 28, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_795_579_200, (2026, 11, 25, 4, 0, 0)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
        ] {
            let civil = utc(seconds);
            let found = (
                civil.year,
                civil.month,
                civil.day,
                civil.hour,
                civil.minute,
                civil.second,
            );
            assert_eq!(found, expected, "{seconds}");
        }
    }

    #[test]
    fn local_time_is_utc_plus_its_offset() {
        for seconds in [0, 1_795_579_200, 1_751_328_000] {
            let local = local(seconds);
            let shifted = utc(seconds + i64::from(local.offset_seconds));
            assert_eq!(
                local,
                Civil {
                    offset_seconds: local.offset_seconds,
                    ..shifted
                }
            );
        }
    }
}
