//! What a process is called when nothing else names it: its script, module or jar, else its executable.
//!
//! Only the command line is looked at, never the environment. Unsure means the executable's name.

/// Options that take the next argument as their value, by interpreter.
const VALUED: &[(&str, &[&str])] = &[
    ("python", &["-W", "-X", "--check-hash-based-pycs"]),
    ("node", &["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions"]),
    ("java", &["-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens"]),
    ("ruby", &["-I", "-r", "-C", "-E"]),
    ("perl", &["-I", "-M"]),
    ("php", &["-c", "-d", "-z"]),
    ("sh", &["-o", "+o", "--rcfile", "--init-file"]),
];
/// Options after which there is no script.
const INLINE: [&str; 5] = ["-c", "-e", "--eval", "-p", "--print"];

/// `executable` is the file name of the executable; `arguments` start with the program's own name.
pub(super) fn name(executable: &str, arguments: &[String]) -> String {
    let arguments = arguments.get(1..).unwrap_or_default();
    interpreter(executable)
        .and_then(|interpreter| script(interpreter, arguments))
        .unwrap_or_else(|| executable.to_owned())
}

fn interpreter(executable: &str) -> Option<&'static str> {
    let plain = executable.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.' || letter == '-');
    match plain {
        "python" | "pypy" => Some("python"),
        "node" | "nodejs" | "bun" | "deno" => Some("node"),
        "java" => Some("java"),
        "ruby" => Some("ruby"),
        "perl" => Some("perl"),
        "php" => Some("php"),
        "sh" | "bash" | "dash" | "zsh" | "ash" => Some("sh"),
        _ => None,
    }
}

fn script(interpreter: &str, arguments: &[String]) -> Option<String> {
    let valued = VALUED.iter().find(|(name, _)| *name == interpreter).map_or(&[][..], |(_, options)| options);
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match (interpreter, argument) {
            ("python", "-m") => return rest.next().map(str::to_owned),
            ("java", "-jar") => return rest.next().and_then(stem),
            ("java", "-m" | "--module") => {
                return rest.next().and_then(|module| module.split('/').next_back()).map(last_part);
            }
            // `deno run x.ts`, `bun run x.ts`.
            ("node", "run") => {}
            (_, option) if valued.contains(&option) => {
                rest.next();
            }
            (name, option) if INLINE.contains(&option) && name != "java" => return None,
            (_, option) if option.starts_with(['-', '+']) => {}
            ("java", class) => return Some(last_part(class)),
            (_, file) => return stem(file),
        }
    }
    None
}

/// `com.shop.Main` → `Main`.
fn last_part(class: &str) -> String {
    class.rsplit('.').next().unwrap_or(class).to_owned()
}

/// `/srv/shop/server.js` → `server`; a file that every project has gives its directory's name instead.
fn stem(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let file = parts.next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem });
    let directory = parts.next().filter(|name| !name.is_empty() && *name != ".");
    let chosen = if matches!(stem, "index" | "__main__") { directory.unwrap_or(stem) } else { stem };
    (!chosen.is_empty()).then(|| chosen.to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_is_called_after_what_it_runs() {
        let cases = [
            ("nginx", "nginx: worker process", "nginx"),
            ("python3.12", "python3 app.py", "app"),
            ("python3", "python3 -u -W ignore /srv/shop/app.py --port 80", "app"),
            ("python3", "python3 -m http.server 8000", "http.server"),
            ("python3", "python3 -c print(1)", "python3"),
            ("python3", "python3", "python3"),
            ("python3", "/usr/bin/python3 /usr/local/bin/gunicorn shop:app", "gunicorn"),
            ("python3", "python3 /srv/tool/__main__.py", "tool"),
            ("node", "node server.js", "server"),
            ("node", "node --max-old-space-size=4096 -r dotenv/config /srv/shop/index.js", "shop"),
            ("node", "node -e require('x')", "node"),
            ("java", "java -Xmx1g -jar /opt/x.jar --port 1", "x"),
            ("java", "java -cp lib/*:. com.shop.Main arg", "Main"),
            ("java", "java -p mods -m shop/com.shop.Server", "Server"),
            ("bash", "bash /srv/run.sh", "run"),
            ("bash", "bash -c sleep", "bash"),
            ("ruby3.2", "ruby puma.rb", "puma"),
            ("deno", "deno run --allow-net main.ts", "main"),
            ("redis-server", "redis-server *:6379", "redis-server"),
            ("node", "", "node"),
        ];
        for (executable, line, expected) in cases {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(super::name(executable, &arguments), expected, "{line}");
        }
    }
}
