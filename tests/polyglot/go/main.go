// A client of a durable consumer: prints what it has handled, leaves when its input ends.
//
//	polyglot ADDRESS CONSUMER
//
// An event whose position is a multiple of ten is refused at the first try.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "tocsin.test/polyglot/tocsinv1"
)

// A stream is written by one goroutine at a time: the answers and the end of the input are two.
type client struct {
	sync.Mutex
	stream grpc.BidiStreamingClient[pb.ConsumeRequest, pb.ConsumeResponse]
}

func (c *client) say(request *pb.ConsumeRequest) {
	c.Lock()
	defer c.Unlock()
	// What cannot be sent is told by Recv.
	_ = c.stream.Send(request)
}

func (c *client) handle(delivery *pb.ConsumeResponse_Delivery) {
	leases := []int64{delivery.LeaseId}
	if delivery.Event.Position%10 == 0 && delivery.Attempt == 1 {
		nack := &pb.ConsumeRequest_Nack{LeaseIds: leases, Action: pb.NackAction_NACK_ACTION_RETRY, Reason: "not yet"}
		c.say(&pb.ConsumeRequest{Message: &pb.ConsumeRequest_Nack_{Nack: nack}})
		return
	}
	fmt.Println("handled", delivery.Event.Position)
	ack := &pb.ConsumeRequest_Ack{LeaseIds: leases}
	c.say(&pb.ConsumeRequest{Message: &pb.ConsumeRequest_Ack_{Ack: ack}})
}

func (c *client) run() error {
	for {
		response, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch message := response.Message.(type) {
		case *pb.ConsumeResponse_Started_:
			fmt.Println("started")
		case *pb.ConsumeResponse_Batch_:
			for _, delivery := range message.Batch.Deliveries {
				c.handle(delivery)
			}
		case *pb.ConsumeResponse_Done_:
			fmt.Println("done")
		}
	}
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	stream, err := pb.NewEventLogClient(connection).Consume(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	c := &client{stream: stream}
	start := &pb.ConsumeRequest_Start{Name: os.Args[2], HeartbeatInterval: durationpb.New(time.Second)}
	c.say(&pb.ConsumeRequest{Message: &pb.ConsumeRequest_Start_{Start: start}})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		c.Lock()
		defer c.Unlock()
		_ = c.stream.CloseSend()
	}()
	if err := c.run(); err != nil {
		log.Fatal(err)
	}
}
