"""psycopg over one connection: does one kind of thing so many times. Prints `ready` and waits for a line before."""
import sys

import psycopg

port, what, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
place = f"host=127.0.0.1 port={port} user=shop dbname=postgres sslmode=disable gssencmode=disable"


def wait():
    print("ready", flush=True)
    sys.stdin.readline()


def failing(cursor, statement, *values):
    try:
        cursor.execute(statement, *values)
        raise SystemExit(f"{statement} did not fail")
    except psycopg.Error:
        pass


with psycopg.connect(place, autocommit=True) as connection:
    # Prepared is what the test says, not what is repeated.
    connection.prepare_threshold = 1_000_000
    cursor = connection.cursor()
    if what == "simple":
        wait()
        for _ in range(rounds):
            cursor.execute("SELECT a FROM t3 WHERE a <> 7781")
            failing(cursor, "SELECT a FROM nowhere WHERE b = 'zqsecret'")
    elif what == "extended":
        wait()
        for _ in range(rounds):
            cursor.execute("SELECT a FROM t4 WHERE a < %s AND 'zqsecret' <> 'x'", (7781,), prepare=False)
            failing(cursor, "SELECT a / %s FROM t5", (0,))
    elif what == "named":
        cursor.execute("SELECT a FROM t6 WHERE a < %s", (7781,), prepare=True)
        wait()
        for _ in range(rounds):
            cursor.execute("SELECT a FROM t6 WHERE a < %s", (7781,), prepare=True)
            cursor.execute("SELECT a FROM t2 WHERE 'zqsecret' <> 'x'")
    elif what == "pipeline":
        wait()
        for _ in range(rounds):
            with connection.pipeline():
                for table in range(1, 6):
                    cursor.execute(f"SELECT a FROM t{table} WHERE a < %s", (7781,), prepare=False)
    elif what == "pipeline-error":
        wait()
        for _ in range(rounds):
            try:
                with connection.pipeline():
                    cursor.execute("SELECT a FROM t1 WHERE a < %s", (7781,), prepare=False)
                    cursor.execute("SELECT a / %s FROM t2", (0,), prepare=False)
                    cursor.execute("SELECT a FROM t3 WHERE a < %s", (7781,), prepare=False)
            except psycopg.Error:
                pass
    elif what == "copy":
        cursor.execute("CREATE TABLE IF NOT EXISTS copied (a int, b text)")
        wait()
        for _ in range(rounds):
            with cursor.copy("COPY copied FROM STDIN") as copy:
                for row in range(20):
                    copy.write_row((row, "zqsecret"))
            with cursor.copy("COPY (SELECT a FROM t7) TO STDOUT") as copy:
                rows = sum(1 for _ in copy.rows())
            assert rows == 7, rows
    elif what == "tables":
        wait()
        for number in range(rounds):
            table = number * 7 % 10
            if number % 3 == 0:
                failing(cursor, f"SELECT a FROM missing{table} WHERE b = 'zqsecret'")
            elif number % 3 == 1:
                cursor.execute(f"SELECT a FROM t{table} WHERE a < %s", (7781,), prepare=False)
            else:
                cursor.execute(f"SELECT a FROM t{table}")
    else:
        sys.exit(f"what is {what}?")
