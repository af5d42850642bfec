package vsphere

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type ref = types.ManagedObjectReference

// sleep waits for d, and reports whether ctx still goes on then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retrieve reads properties of the objects that spec selects. It takes one call, and one more for each further page.
func retrieve(ctx context.Context, c *vim25.Client, spec types.PropertyFilterSpec) ([]types.ObjectContent, error) {
	res, err := methods.RetrievePropertiesEx(ctx, c, &types.RetrievePropertiesEx{
		This: c.ServiceContent.PropertyCollector, SpecSet: []types.PropertyFilterSpec{spec},
	})
	if err != nil || res.Returnval == nil {
		return nil, err
	}
	objects, token := res.Returnval.Objects, res.Returnval.Token
	for token != "" {
		next, err := methods.ContinueRetrievePropertiesEx(ctx, c, &types.ContinueRetrievePropertiesEx{
			This: c.ServiceContent.PropertyCollector, Token: token,
		})
		if err != nil {
			return nil, err
		}
		objects, token = append(objects, next.Returnval.Objects...), next.Returnval.Token
	}
	return objects, nil
}

// properties reads properties of one object into dst, a pointer to one of the types of vim25/mo.
func properties(ctx context.Context, c *vim25.Client, object ref, dst any, paths ...string) error {
	objects, err := retrieve(ctx, c, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{Obj: object}},
		PropSet:   []types.PropertySpec{{Type: object.Type, PathSet: paths}},
	})
	if err != nil {
		return err
	}
	return mo.LoadObjectContent(objects, dst)
}

// children reads properties of the machines in a folder.
func children(ctx context.Context, c *vim25.Client, folder ref, paths ...string) ([]types.ObjectContent, error) {
	return retrieve(ctx, c, types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{{
			Obj: folder, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "Folder", Path: "childEntity"}},
		}},
		PropSet: []types.PropertySpec{{Type: "VirtualMachine", PathSet: paths}},
	})
}

// wait waits for a task and returns its result. When ctx ends it cancels the task and returns the context's error; the
// task may end later, with or without success.
func wait(ctx context.Context, c *vim25.Client, task ref) (types.AnyType, error) {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		info, err := taskInfo(ctx, c, task)
		switch {
		case err != nil && ctx.Err() == nil:
			return nil, err
		case err != nil:
		case info.State == types.TaskInfoStateSuccess:
			return info.Result, nil
		case info.State == types.TaskInfoStateError:
			if info.Error == nil {
				return nil, fmt.Errorf("the task %s failed without a reason", info.DescriptionId)
			}
			return nil, &taskError{name: info.DescriptionId, fault: *info.Error}
		}
		if err != nil || !sleep(ctx, delay) {
			cancelTask(ctx, c, task)
			return nil, context.Cause(ctx)
		}
	}
}

func taskInfo(ctx context.Context, c *vim25.Client, task ref) (types.TaskInfo, error) {
	var t mo.Task
	err := properties(ctx, c, task, &t, "info")
	return t.Info, err
}

// cancelTask asks the server to cancel a task. Not every task can be cancelled.
func cancelTask(ctx context.Context, c *vim25.Client, task ref) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = methods.CancelTask(ctx, c, &types.CancelTask{This: task})
}

// settle waits until none of the tasks runs any more, whatever their results. Tasks that the server has forgotten are
// over.
func settle(ctx context.Context, c *vim25.Client, tasks []ref) error {
	for _, task := range tasks {
		_, err := wait(ctx, c, task)
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if err != nil && faultOf(err) == nil {
			return err
		}
	}
	return nil
}
