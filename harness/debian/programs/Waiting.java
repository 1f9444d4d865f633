// SPDX-License-Identifier: GPL-2.0
/* A virtual machine with some threads and memory that waits. */
public class Waiting {
	static byte[][] memory = new byte[200][];

	public static void main(String[] args) throws Exception {
		for (int n = 0; n < memory.length; n++)
			memory[n] = new byte[n * 100];
		for (int n = 0; n < 4; n++) {
			Thread thread = new Thread(() -> {
				try {
					Thread.sleep(3600000);
				} catch (InterruptedException e) {
				}
			});
			thread.setDaemon(true);
			thread.start();
		}
		System.gc();
		System.out.println("ready " + ProcessHandle.current().pid());
		Thread.sleep(7200000);
	}
}
