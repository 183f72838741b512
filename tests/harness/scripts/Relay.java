// A service with two pools of threads: for each GET /both/N a thread of the first has one of the second ask the server at
// UPSTREAM for something, over connections that are kept, waits for it, and does so again. Only what a JDK has.
// Arguments: its own port, that of the other server.

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

public class Relay {
    private static final int THREADS = 16;

    private static boolean leaf(int upstream, int number, int index) throws IOException, InterruptedException {
        Thread.sleep(number * 7 % 5);
        String path = "/wait/" + (1 + number % 7) + "/" + (number * 10 + index);
        try (InputStream answer = new URL("http://127.0.0.1:" + upstream + path).openStream()) {
            return answer.readAllBytes().length > 0;
        }
    }

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(arguments[0]);
        int upstream = Integer.parseInt(arguments[1]);
        ExecutorService askers = Executors.newFixedThreadPool(2 * THREADS);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.createContext("/both/", exchange -> {
            String path = exchange.getRequestURI().getPath();
            int number = Integer.parseInt(path.substring(path.lastIndexOf('/') + 1));
            int status = 200;
            try {
                askers.submit(() -> leaf(upstream, number, 0)).get();
                askers.submit(() -> leaf(upstream, number, 1)).get();
            } catch (Exception failure) {
                System.err.println(path + ": " + failure);
                status = 500;
            }
            exchange.sendResponseHeaders(status, 3);
            exchange.getResponseBody().write("ok\n".getBytes());
            exchange.close();
        });
        server.start();
    }
}
