/* The ceiling: rows of 200 bytes inserted into Evertail's own table by one prepared statement, 1,000 a transaction,
 * synchronous=FULL. No HTTP, no JSON, no readers. Prints rows a second as one JSON object.
 * gcc -O2 -o ceiling ceiling.c -lsqlite3; ceiling FILE SECONDS */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sqlite3 *db;

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void run(const char *sql) {
    if (sqlite3_exec(db, sql, 0, 0, 0) != SQLITE_OK) {
        fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
        exit(1);
    }
}

int main(int count, char **arguments) {
    if (count != 3 || sqlite3_open(arguments[1], &db) != SQLITE_OK) return 2;
    run("PRAGMA journal_mode=WAL");
    run("PRAGMA synchronous=FULL");
    sqlite3_stmt *insert;
    const char *sql = "INSERT INTO log (seq, stream, source, type, created_at, data) VALUES (?, 'bench', '', 'message', "
                      "'2026-11-21T09:00:00.123456Z', ?)";
    if (sqlite3_prepare_v2(db, sql, -1, &insert, 0) != SQLITE_OK) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(db));
        return 1;
    }
    char data[201];
    memset(data, 'x', 200);
    memcpy(data, "{\"pad\":\"", 8);
    memcpy(data + 198, "\"}", 3);
    sqlite3_int64 seq = 0;
    double start = seconds(), end = start + atof(arguments[2]);
    while (seconds() < end) {
        run("BEGIN IMMEDIATE");
        for (int index = 0; index < 1000; index++) {
            sqlite3_bind_int64(insert, 1, ++seq);
            sqlite3_bind_text(insert, 2, data, 200, SQLITE_STATIC);
            if (sqlite3_step(insert) != SQLITE_DONE) {
                fprintf(stderr, "%s\n", sqlite3_errmsg(db));
                return 1;
            }
            sqlite3_reset(insert);
        }
        run("COMMIT");
    }
    printf("{\"run\":\"ceiling\",\"rows_per_second\":%.0f,\"sqlite\":\"%s\"}\n", seq / (seconds() - start), sqlite3_libversion());
    return 0;
}
