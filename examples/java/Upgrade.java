// Orders one upgrade and waits for its outcome, with RabbitMQ's Java client. Exit status 0: the device was upgraded.
//
//     apt-get install default-jdk-headless librabbitmq-client-java        (or com.rabbitmq:amqp-client with Maven or Gradle)
//     java -cp /usr/share/java/amqp-client.jar:/usr/share/java/slf4j-api.jar Upgrade.java CPE000001 https://files.example.com/fw-2.bin

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.time.Instant;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;

public class Upgrade {
    static final Set<String> FINAL =
            Set.of("upgrade.completed", "upgrade.failed", "upgrade.cancelled", "upgrade.rejected");

    record Event(String type, String body) {}

    public static void main(String[] arguments) throws Exception {
        String jobId = "example-" + UUID.randomUUID();
        String url = System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(url);
        String type;
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            channel.confirmSelect();
            channel.addReturnListener(message -> {
                System.err.println("nobody takes requests here: is a worker's topology declared?");
                System.exit(1);
            });

            // A queue of our own that gets the final event alone, by reply_to; correlation_id comes back with it.
            String queue = channel.queueDeclare().getQueue();
            BlockingQueue<Event> events = new ArrayBlockingQueue<>(16);
            channel.basicConsume(queue, true, (tag, delivery) -> {
                AMQP.BasicProperties properties = delivery.getProperties();
                if (jobId.equals(properties.getCorrelationId())) {
                    // The event's type is a property too: enough to know the outcome without a JSON library.
                    events.add(new Event(properties.getType(), new String(delivery.getBody(), "UTF-8")));
                }
            }, tag -> {});

            String request = """
                    {"job_id": "%s", "cpe_id": "%s", "firmware_url": "%s", "requested_at": "%s"}"""
                    .formatted(jobId, arguments[0], arguments[1], Instant.now());
            AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
                    .contentType("application/json")
                    .deliveryMode(2)
                    .correlationId(jobId)
                    .replyTo(queue)
                    .build();
            channel.basicPublish("upgrade.requests", "request", true, properties, request.getBytes("UTF-8"));
            channel.waitForConfirmsOrDie(30_000);
            System.err.println("ordered " + jobId);

            Event event;
            do {
                event = events.take();
                System.out.println(event.type() + " " + event.body());
            } while (!FINAL.contains(event.type()));
            type = event.type();
        }
        System.exit(type.equals("upgrade.completed") ? 0 : 1);
    }
}
