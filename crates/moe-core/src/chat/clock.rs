//! `strftime` of the present, for templates that tell the model today's date.

use chrono::format::StrftimeItems;
use chrono::{DateTime, Utc};

pub(super) fn format_now(format: &str) -> String {
    format_time(&Utc::now(), format)
}

/// An unknown directive stays as it is written.
fn format_time(time: &DateTime<Utc>, format: &str) -> String {
    time.format_with_items(StrftimeItems::new_lenient(format))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(seconds: i64, format: &str) -> String {
        format_time(&DateTime::from_timestamp_secs(seconds).unwrap(), format)
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(format(0, "%Y-%m-%d %H:%M:%S"), "1970-01-01 00:00:00");
        assert_eq!(format(951_827_696, "%d %b %Y"), "29 Feb 2000");
        assert_eq!(
            format(1_735_689_599, "%d %B %Y, %H:%M"),
            "31 December 2024, 23:59"
        );
    }

    #[test]
    fn what_is_no_directive_stays_as_it_is_written() {
        assert_eq!(format(0, "%Q 100%% %Y é %"), "%Q 100% 1970 é %");
    }
}
