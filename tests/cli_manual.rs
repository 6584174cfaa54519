//! What shells and `man` know of the commands.

use std::{collections::BTreeSet, process::Command};

fn settled(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_settled")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_shell_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settled");
    std::fs::write(&file, settled(&["completions", "bash"])).unwrap();
    let complete = |words: &str| {
        let count = words.split(' ').count() - 1;
        let script = format!(
            "source {}; COMP_WORDS=({words}); [ '{}' = ' ' ] && COMP_WORDS+=(''); COMP_CWORD={count}; \
             _settled settled \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display(),
            &words[words.len() - 1..],
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let found = String::from_utf8(output.stdout).unwrap();
        found.lines().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    assert!(complete("settled jo").contains("jobs"));
    for word in ["list", "watch", "show", "retry", "approve", "refuse", "resolve"] {
        assert!(complete("settled jobs ").contains(word), "{word}");
    }
    for option in ["--state", "--older-than", "--text", "--csv", "--after"] {
        assert!(complete("settled jobs list --").contains(option), "{option}");
    }
    assert!(complete("settled jobs list --sort ").contains("longest"));
    assert!(settled(&["completions", "zsh"]).starts_with("#compdef settled"));
    assert!(settled(&["completions", "fish"]).contains("complete -c settled"));
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let said = settled(&["man", pages.to_str().unwrap()]);
    assert!(said.contains("settled.1"), "{said}");
    let names: BTreeSet<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["settled.1", "settled-jobs.1", "settled-jobs-list.1", "settled-book-import.1"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    let page = std::fs::read_to_string(pages.join("settled-jobs-list.1")).unwrap();
    for part in [".TH settled", "older\\-than", "SYNOPSIS", "DESCRIPTION"] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
}
