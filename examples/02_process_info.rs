//! 2. A process knows who it is and who its parent is.
use tenfold::Process;

fn info(title: &str) {
    println!("{title}");
    println!("module name: {}", module_path!());
    println!("parent process: {}", tenfold::parent_pid());
    println!("process id: {}", tenfold::pid());
}

fn hello(name: String) {
    info("function hello");
    println!("hello {name}");
}

fn main() -> tenfold::Result<()> {
    info("main line");
    Process::spawn(hello, "bob".to_string())?.join()
}
