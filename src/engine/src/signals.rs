//! Signals by name and number: signal(7) for x86-64, with Docker's names of the real-time signals.

/// The first real-time signal that is the program's: glibc and musl keep those before it.
const RTMIN: i32 = 34;
/// The last signal (_NSIG of the kernel).
const RTMAX: i32 = 64;

/// Names without SIG; the first of a number is the one that [`name`] gives.
const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// A signal by number, or by name in any case, with or without SIG.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(name, _)| *name == bare);
    named.map(|(_, number)| *number).or_else(|| real_time(bare))
}

/// A signal's name, with SIG; a number that has none is its own.
pub fn name(number: i32) -> String {
    // Docker counts from the nearer end.
    const MIDDLE: i32 = RTMIN + 15;
    let named = NAMES.iter().find(|(_, known)| *known == number);
    match (named, number) {
        (Some((name, _)), _) => format!("SIG{name}"),
        (None, RTMIN) => "SIGRTMIN".into(),
        (None, RTMAX) => "SIGRTMAX".into(),
        (None, RTMIN..=MIDDLE) => format!("SIGRTMIN+{}", number - RTMIN),
        (None, RTMIN..=RTMAX) => format!("SIGRTMAX-{}", RTMAX - number),
        (None, number) => number.to_string(),
    }
}

/// `RTMIN`, `RTMIN+n`, `RTMAX-n`, `RTMAX`
fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => {
            let digits = text.strip_prefix(sign)?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<i32>().ok().filter(|_| is_number)
        }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_name_that_leads_back_to_it() {
        for signal in 1..=RTMAX {
            assert_eq!(number(&name(signal)), Some(signal), "{}", name(signal));
        }
        // 32 and 33 are the C library's own: they have no name.
        assert_eq!(name(32), "32");
        assert_eq!(name(37), "SIGRTMIN+3");
        assert_eq!(name(62), "SIGRTMAX-2");
    }

    #[test]
    fn names_are_taken_in_any_case_and_with_docker_s_synonyms() {
        for (text, signal) in [
            ("SIGRTMIN+3", 37),
            ("rtmin", 34),
            ("RTMAX", 64),
            ("sigrtmax-14", 50),
            ("RTMIN+30", 64),
            ("IOT", 6),
            ("cld", 17),
            ("SIGPOLL", 29),
            ("PWR", 30),
            ("winch", 28),
            ("64", 64),
        ] {
            assert_eq!(number(text), Some(signal), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_none() {
        for text in [
            "",
            "SIG",
            "0",
            "-1",
            "65",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN++1",
            "RTMIN+-1",
            "RTMAX+1",
            "RTMIN+99999999999",
            "NOPE",
            "SIGSIGTERM",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
