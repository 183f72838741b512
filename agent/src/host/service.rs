//! What a process is called when nothing else names it: its script, module or jar, else its executable.
//!
//! Only the command line is looked at, never the environment. Unsure means the executable's name.

/// Options that take the next argument as their value, by interpreter.
const VALUED: &[(&str, &[&str])] = &[
    ("python", &["-W", "-X", "--check-hash-based-pycs"]),
    ("node", &["-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file"]),
    (
        "java",
        &["-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens", "--add-exports"],
    ),
    ("ruby", &["-I", "-r", "-C", "-E"]),
    ("perl", &["-I", "-M"]),
    ("php", &["-c", "-d", "-z", "-S", "-t"]),
    ("dotnet", &["--depsfile", "--runtimeconfig", "--additionalprobingpath"]),
    ("sh", &["-o", "+o", "--rcfile", "--init-file"]),
];
/// Options after which there is no script.
const INLINE: [&str; 5] = ["-c", "-e", "--eval", "-p", "--print"];
/// Python programs that run somebody else's module, which they are told as `module:object`.
const MODULE_SERVERS: [&str; 7] = ["gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "uwsgi"];

/// `executable` is the file name of the executable; `arguments` start with the program's own name.
pub(super) fn name(executable: &str, arguments: &[String]) -> String {
    let title = arguments.first().map_or("", String::as_str);
    let arguments = arguments.get(1..).unwrap_or_default();
    interpreter(executable)
        .and_then(|interpreter| titled(title).or_else(|| script(interpreter, arguments)))
        .or_else(|| {
            MODULE_SERVERS.contains(&executable).then(|| served(arguments.iter().map(String::as_str))).flatten()
        })
        .unwrap_or_else(|| executable.to_owned())
}

/// Whether an executable of this name runs programs that its arguments name.
pub(super) fn is_interpreter(executable: &str) -> bool {
    interpreter(executable).is_some()
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
        "dotnet" => Some("dotnet"),
        "lua" | "luajit" | "Rscript" | "tclsh" => Some("lua"),
        "sh" | "bash" | "dash" | "zsh" | "ash" | "busybox" => Some("sh"),
        _ => None,
    }
}

/// A title that a worker gave itself: `gunicorn: master [shop:app]`.
fn titled(title: &str) -> Option<String> {
    let (program, rest) = title.split_once(": ")?;
    let module = rest.split_once('[')?.1.split_once(']')?.0;
    MODULE_SERVERS.contains(&program).then(|| module_of(module).unwrap_or_else(|| program.to_owned()))
}

fn script(interpreter: &str, arguments: &[String]) -> Option<String> {
    let valued = VALUED.iter().find(|(name, _)| *name == interpreter).map_or(&[][..], |(_, options)| options);
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match (interpreter, argument) {
            ("python", option) if ends_short(option, 'm') => {
                let module = rest.next()?;
                let served = MODULE_SERVERS.contains(&module).then(|| served(rest)).flatten();
                return served.or_else(|| Some(module.to_owned()));
            }
            ("python", option) if ends_short(option, 'c') => return None,
            ("java", "-jar") => return rest.next().and_then(stem),
            ("java", "-m" | "--module") => {
                return rest.next().and_then(|module| module.split('/').next_back()).map(last_part);
            }
            // `deno run x.ts`, `bun run x.ts`; `dotnet exec x.dll`.
            ("node", "run") | ("dotnet", "exec") => {}
            ("php", "-f") => return rest.next().and_then(stem),
            (_, option) if valued.contains(&option) => {
                rest.next();
            }
            (name, option) if INLINE.contains(&option) && name != "java" => return None,
            (_, option) if option.starts_with(['-', '+']) => {}
            ("java", class) => return Some(last_part(class)),
            (_, file) => {
                let name = stem(file)?;
                let served = MODULE_SERVERS.contains(&name.as_str()).then(|| served(rest)).flatten();
                return served.or(Some(name));
            }
        }
    }
    None
}

/// `-m`, and together with flags that take no value: `-um`.
fn ends_short(option: &str, letter: char) -> bool {
    option
        .strip_prefix('-')
        .and_then(|flags| flags.strip_suffix(letter))
        .is_some_and(|flags| flags.chars().all(|flag| "bBdEiIOPqRsSuvx".contains(flag)))
}

/// The first `module:object` among the arguments of a server.
fn served<'a>(mut arguments: impl Iterator<Item = &'a str>) -> Option<String> {
    arguments.find_map(module_of)
}

/// `shop.wsgi:application` → `shop.wsgi`; addresses (`localhost:80`, `unix:/run/x`) are no modules.
fn module_of(argument: &str) -> Option<String> {
    let (module, object) = argument.split_once(':')?;
    let object = object.trim_end_matches("()");
    let word = |text: &str| {
        text.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && text.chars().all(|each| each.is_alphanumeric() || each == '_')
    };
    let fits = module.split('.').all(word) && object.split('.').all(word) && !matches!(module, "unix" | "fd");
    fits.then(|| module.to_owned())
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
            ("python3", "python3 -m pkg.mod --port 80", "pkg.mod"),
            ("python3", "python3 -um pkg.mod", "pkg.mod"),
            ("python3", "python3 -Ic print(1) x.py", "python3"),
            ("python3", "/usr/bin/python3 /usr/local/bin/gunicorn -w 4 -b localhost:8000 app:app", "app"),
            ("python3", "/usr/bin/python3 /usr/local/bin/gunicorn -b unix:sock shop.wsgi:application", "shop.wsgi"),
            ("python3", "/usr/bin/python3 /usr/local/bin/gunicorn -c conf.py", "gunicorn"),
            ("python3", "python3 -m uvicorn shop.main:create_app() --factory", "shop.main"),
            ("python3", "python3 -m uvicorn --help", "uvicorn"),
            ("uwsgi", "uwsgi --http :8000 --module shop:app", "shop"),
            ("perl", "perl -w /usr/sbin/munin-node", "munin-node"),
            ("php8.2", "php -S 127.0.0.1:80 -t web front.php", "front"),
            ("php", "php -d x=1 artisan serve", "artisan"),
            ("dotnet", "dotnet /srv/Shop.Api.dll --urls x", "Shop.Api"),
            // A script with `#!/usr/bin/env ruby`: the kernel puts its path where the interpreter looks for it.
            ("ruby3.1", "ruby /usr/local/bin/report --daily", "report"),
            ("bash", "/bin/bash /opt/backup.sh", "backup"),
            ("java", "java -XX:+UseZGC -classpath a:b com.acme.Main", "Main"),
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
        // A title is one argument.
        for (title, expected) in [("gunicorn: master [shop:app]", "shop"), ("gunicorn: worker [shop]", "gunicorn")] {
            assert_eq!(super::name("python3.11", &[title.to_owned()]), expected);
        }
    }
}
