//! The log sink.

use super::{Context, Problems, delivery};
use crate::api::{LogSink, Mode, Reason, Risk};
use crate::floor::{Floor, clean_path};

/// `field` is the path of the `log`.
pub(super) fn check(log: &LogSink, context: &Context<'_>, field: &str, problems: &mut Problems) {
    if let Err((reason, message)) = check_path(&log.path, context.floor) {
        problems.add(format!("{field}.path"), reason, message);
    }
    let delivery = &log.delivery;
    let is_strict = delivery.mode == Mode::BlockingStrict;
    problems.risk(Risk::BlockingStrictLog, is_strict, context, &format!("{field}.delivery.mode"), || {
        "BlockingStrict: while the log cannot be written, for example because its disk is full, kube-apiserver rejects every audited \
         request. Use Blocking"
            .into()
    });
    let is_unbounded = log.path != "-" && log.max_backups == 0;
    problems.risk(Risk::UnboundedLog, is_unbounded, context, field, || {
        let removed = match log.max_age_days {
            0 => "none is ever removed".into(),
            days => format!("removes them only after maxAgeDays: {days}"),
        };
        format!("maxBackups: 0 keeps every rotated file, and {removed}. The log can fill the disk, which etcd often shares. Set maxBackups")
    });
    delivery::strict(is_strict, context.omit_stages, &format!("{field}.delivery"), problems);
    delivery::check(
        delivery.mode,
        delivery.batch.as_ref(),
        delivery::Backend::Log,
        &format!("{field}.delivery"),
        problems,
    );
    delivery::check_truncate(delivery.truncate.as_ref(), &format!("{field}.delivery"), problems);
}

/// Whether a log may be written at this path.
fn check_path(path: &str, floor: &Floor) -> Result<(), (Reason, String)> {
    let invalid = |message: String| (Reason::InvalidSetup, message);
    if path == "-" {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(invalid(format!("must be an absolute path, or - for standard output, not {path:?}")));
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    if matches!(file, "" | "." | "..") {
        return Err(invalid(format!("{path:?} is a directory: add the name of a file, such as audit.log")));
    }
    clean_path(path).map_err(invalid)?;
    // A permitted directory cannot be the file.
    if floor.log_directories.iter().any(|directory| directory.as_str() == path) {
        return Err(invalid(format!("{path:?} is a directory: add the name of a file, such as audit.log")));
    }
    if !floor.permits_log(path) {
        let message = format!(
            "{path:?} is outside the permitted log directories ({}). Choose a path below one of them, or have an administrator add the \
             directory to floor.logDirectories",
            floor.log_directories_listed()
        );
        return Err((Reason::BelowFloor, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_below_a_permitted_directory() {
        let floor = Floor::read("logDirectories: [/var/log/kubernetes, /data/audit]").unwrap();
        for path in
            ["-", "/var/log/kubernetes/audit/audit.log", "/var/log/kubernetes/audit.log", "/data/audit/audit.log"]
        {
            assert_eq!(check_path(path, &floor), Ok(()), "{path}");
        }
    }

    #[test]
    fn any_other_path_is_refused_and_the_message_says_why() {
        for (path, want) in [
            ("audit.log", "must be an absolute path, or - for standard output, not \"audit.log\""),
            ("./audit.log", "must be an absolute path"),
            ("/var/log/kubernetes/", "\"/var/log/kubernetes/\" is a directory: add the name of a file"),
            ("/var/log/kubernetes", "\"/var/log/kubernetes\" is a directory"),
            ("/", "\"/\" is a directory"),
            ("/var/log/kubernetes/..", "\"/var/log/kubernetes/..\" is a directory"),
            ("/var/log/kubernetes//a", "\"/var/log/kubernetes//a\" has //, /./ or /../"),
            ("/var/log/kubernetes/../../../etc/cron.d/a", "\"/var/log/kubernetes/../../../etc/cron.d/a\" has //"),
            ("/var/log/kubernetes/a:b/c", "has a colon"),
            ("/var/log/kubernetes/a\nb/c", "has a colon"),
            ("/var/log/kubernetes/$$/c", "\"/var/log/kubernetes/$$/c\" has a $:"),
            ("/var/log/kubernetes/$(HOME)", "\"/var/log/kubernetes/$(HOME)\" has a $:"),
            ("/dev/stdout", "\"/dev/stdout\" is outside the permitted log directories (/var/log/kubernetes). Choose"),
            ("/etc/cron.d/audit", "\"/etc/cron.d/audit\" is outside"),
            ("/var/log/audit.log", "\"/var/log/audit.log\" is outside"),
            ("/var/log/kubernetes2/audit.log", "\"/var/log/kubernetes2/audit.log\" is outside"),
        ] {
            let (_, message) = check_path(path, &Floor::default()).expect_err(path);
            assert!(message.starts_with(want), "{path}\nwant {want}\ngot  {message}");
        }
    }
}
