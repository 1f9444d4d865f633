// SPDX-License-Identifier: GPL-2.0
/*
 * Asks a database for a sum, each time over a connection of its own, at times that do not
 * depend on how long an answer takes. For each number of seconds that it reads, it prints how
 * long the answers took in that time, in ns: from when a question was due, if it had to wait
 * for the one before it.
 */
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Scanner;
import java.util.concurrent.locks.LockSupport;

public class Requests {
	static final int ROWS = 1000;

	static void prepare(Connection connection) throws SQLException {
		try (Statement statement = connection.createStatement()) {
			statement.execute("create table if not exists t(id int primary key, v int)");
			statement.execute("merge into t select x, x from system_range(1, " + ROWS + ")");
		}
	}

	static void ask(String url) throws SQLException {
		try (Connection connection = DriverManager.getConnection(url, "sa", "");
		     Statement statement = connection.createStatement();
		     ResultSet result = statement.executeQuery("select sum(v) from t where id <= 100")) {
			if (!result.next() || result.getInt(1) != 5050)
				throw new SQLException("a wrong sum");
		}
	}

	public static void main(String[] args) throws Exception {
		String url = args[0];
		long interval = Long.parseLong(args[1]) * 1000;
		Scanner seconds = new Scanner(System.in);

		try (Connection connection = DriverManager.getConnection(url, "sa", "")) {
			prepare(connection);
			System.out.println("ready");
			while (seconds.hasNextInt()) {
				StringBuilder took = new StringBuilder();
				long due = System.nanoTime();
				long end = due + seconds.nextInt() * 1_000_000_000L;

				for (; due < end; due += interval) {
					long begin = due;

					while (System.nanoTime() < due) {
						LockSupport.parkNanos(due - System.nanoTime());
						begin = System.nanoTime();
					}
					ask(url);
					took.append(System.nanoTime() - begin).append(' ');
				}
				System.out.println(took);
			}
		}
	}
}
