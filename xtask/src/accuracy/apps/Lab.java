// The lab's service in Java: HttpServer with a fixed pool of threads, HttpClient (which has threads of its own), Redis
// and PostgreSQL (simple queries) by hand over pooled connections.
//
// LAB_ROLE says which service it is, LAB_* where the others are. The path is the place in the tree, and what it calls
// are the places below.

import com.sun.net.httpserver.HttpServer;
import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.Executors;
import java.util.concurrent.locks.LockSupport;

public class Lab {
    private static final String[] UPSTREAMS = said("LAB_UPSTREAMS").split(",");
    private static final boolean PARALLEL = said("LAB_PARALLEL").equals("1");
    private static final int THINK_US = Integer.parseInt(said("LAB_THINK_US"));
    private static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private static String said(String name) {
        return System.getenv(name);
    }

    // Sleeps as long as seed, place and step say: FNV-1a, so that all languages think alike.
    private static void think(String place, int step) {
        int number = (int) 2166136261L;
        for (byte letter : (said("LAB_SEED") + "/" + place + "/" + step).getBytes(StandardCharsets.US_ASCII)) {
            number = (number ^ letter) * 16777619;
        }
        LockSupport.parkNanos(Integer.toUnsignedLong(number) % (THINK_US + 1) * 1000);
    }

    private static final class Connection {
        final Socket socket;
        final DataInputStream in;
        final DataOutputStream out;

        Connection(String port) throws IOException {
            socket = new Socket(InetAddress.getLoopbackAddress(), Integer.parseInt(said(port)));
            socket.setTcpNoDelay(true);
            in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
            out = new DataOutputStream(socket.getOutputStream());
        }

        String line() throws IOException {
            StringBuilder line = new StringBuilder();
            for (int letter = in.readUnsignedByte(); letter != '\n'; letter = in.readUnsignedByte()) {
                line.append((char) letter);
            }
            return line.toString();
        }

        void send(String kind, String text) throws IOException {
            byte[] body = (text + "\0").getBytes(StandardCharsets.UTF_8);
            ByteArrayOutputStream message = new ByteArrayOutputStream();
            DataOutputStream fields = new DataOutputStream(message);
            fields.writeBytes(kind);
            fields.writeInt(body.length + 4);
            fields.write(body);
            out.write(message.toByteArray());
        }

        // Reads until ReadyForQuery; whether a row came before it.
        boolean ready() throws IOException {
            boolean row = false;
            while (true) {
                int kind = in.readUnsignedByte();
                in.readFully(new byte[in.readInt() - 4]);
                row |= kind == 'D';
                if (kind == 'Z') {
                    return row;
                }
            }
        }
    }

    private static final ConcurrentLinkedDeque<Connection> REDIS = new ConcurrentLinkedDeque<>();
    private static final ConcurrentLinkedDeque<Connection> POSTGRESQL = new ConcurrentLinkedDeque<>();

    // Gives one command; its answer is one line here.
    private static boolean command(String... words) throws IOException {
        Connection kept = REDIS.pollFirst();
        Connection connection = kept == null ? new Connection("LAB_REDIS") : kept;
        StringBuilder text = new StringBuilder("*" + words.length + "\r\n");
        for (String word : words) {
            text.append("$" + word.length() + "\r\n" + word + "\r\n");
        }
        connection.out.write(text.toString().getBytes(StandardCharsets.US_ASCII));
        boolean good = !connection.line().startsWith("-");
        REDIS.addFirst(connection);
        return good;
    }

    private static boolean ask(String alias) throws IOException {
        Connection connection = POSTGRESQL.pollFirst();
        if (connection == null) {
            connection = new Connection("LAB_POSTGRESQL");
            connection.send("", "\0\003\0\0user\0lab\0database\0postgres\0");
            connection.ready();
        }
        connection.send("Q", "SELECT 1 AS " + alias);
        boolean row = connection.ready();
        POSTGRESQL.addFirst(connection);
        return row;
    }

    private static HttpRequest request(String place, int index) {
        return HttpRequest.newBuilder(
                URI.create("http://127.0.0.1:" + UPSTREAMS[index] + "/task/" + place + "/" + index)).build();
    }

    private static boolean front(String place) throws Exception {
        boolean good = true;
        if (!PARALLEL) {
            for (int index = 0; index < UPSTREAMS.length; index++) {
                think(place, index);
                good &= CLIENT.send(request(place, index), HttpResponse.BodyHandlers.ofString()).statusCode() == 200;
            }
            return good;
        }
        List<CompletableFuture<HttpResponse<String>>> answers = new ArrayList<>();
        for (int index = 0; index < UPSTREAMS.length; index++) {
            think(place, index);
            answers.add(CLIENT.sendAsync(request(place, index), HttpResponse.BodyHandlers.ofString()));
        }
        for (CompletableFuture<HttpResponse<String>> answer : answers) {
            good &= answer.get().statusCode() == 200;
        }
        return good;
    }

    private static boolean cache(String place) throws IOException {
        String key = "lab:" + place.replace('/', ':');
        think(place, 0);
        boolean good = command("GET", key + ":0");
        think(place, 1);
        return command("INCR", key + ":1") && good;
    }

    private static boolean store(String place) throws IOException {
        think(place, 0);
        boolean good = ask("lab_" + place.replace('/', '_') + "_0");
        think(place, 1);
        return command("GET", "lab:" + place.replace('/', ':') + ":1") && good;
    }

    private static boolean work(String place) throws Exception {
        switch (said("LAB_ROLE")) {
            case "s1":
                return front(place);
            case "s2":
                return cache(place);
            default:
                return store(place);
        }
    }

    public static void main(String[] arguments) throws Exception {
        InetSocketAddress address =
                new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(said("LAB_PORT")));
        HttpServer server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(Integer.parseInt(said("LAB_WORKERS"))));
        server.createContext("/task/", exchange -> {
            String place = exchange.getRequestURI().getPath().substring("/task/".length());
            boolean good = false;
            try {
                good = work(place);
            } catch (Exception failure) {
                System.err.println(place + ": " + failure);
            }
            think(place, 9);
            byte[] text = (good ? "ok" : "failed").getBytes(StandardCharsets.US_ASCII);
            exchange.sendResponseHeaders(good ? 200 : 500, text.length);
            exchange.getResponseBody().write(text);
            exchange.close();
        });
        server.start();
    }
}
